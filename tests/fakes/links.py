"""A worker's connection to its agent, without a socket: what was sent is there to look at."""

from asyncio import StreamWriter
from typing import cast

from penstock.contract.node import AgentMessage, Frames, Hello, decode_agent_message
from penstock.node.links import Link


class FakeWriter:
    """The agent's end of a connection."""

    def __init__(self) -> None:
        """Begin with an open connection."""
        self.messages: list[AgentMessage] = []
        self.link: Link
        self._frames = Frames()
        self._is_closed = False

    def write(self, content: bytes) -> None:
        """Take in messages; those behind the end are lost."""
        if not self._is_closed:
            self.messages += map(decode_agent_message, self._frames.feed(content))

    def is_closing(self) -> bool:
        """Return whether the connection has ended."""
        return self._is_closed

    def close(self) -> None:
        """End it."""
        self._is_closed = True


def make_link(slot: int, epoch: int) -> tuple[FakeWriter, Link]:
    """Return a worker's connection, and what arrives there."""
    writer = FakeWriter()
    writer.link = Link(Hello(slot, epoch, 1, 0, is_draining=False), cast("StreamWriter", writer))
    return writer, writer.link
