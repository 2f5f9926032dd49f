"""Answers of other servers, and what stays behind of them."""

from typing import Final

import httpx

_NOTHING: Final = httpx.ByteStream(b"")


def let_go(answer: httpx.Response) -> None:
    """Have nothing stay behind of an answer that was read to its end or given up.

    In httpx an answer and its stream hold each other, and with them all that was sent and received:
    it would stay until the collector passes by. An agent, which calls all the time, would hold
    megabytes of it, now more, now less, and its heap would have holes.
    """
    answer.stream = _NOTHING
