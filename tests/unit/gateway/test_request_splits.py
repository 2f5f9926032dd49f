"""How the network cuts a caller's bytes changes nothing."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fakes.effort import tries
from tests.fakes.http_rig import CHAT, chunked, get, request
from tests.fakes.still_worker import StillConnection, StillWorker
from tests.fakes.worker_process import KEY

from penstock.gateway.errors import JOURNAL_FULL
from penstock.kit.errors import Refusal

_REQUESTS = (
    get(b"/health/live"),
    get(b"/health/ready", method=b"HEAD"),
    get(b"/v1/models", key=KEY),
    get(b"/v1/models"),
    get(b"/nothing"),
    get(b"/v1/models", method=b"OPTIONS"),
    request(),
    request(b"junk"),
    request(key="wrong"),
    request(CHAT, b"Expect: 100-continue", key="wrong"),
    chunked(),
    chunked(key="wrong"),
    request(CHAT, b"x-request-id: mine"),
    request(CHAT, b"Connection: close"),
    request(CHAT, version=b"1.0"),
    request(CHAT, b"Connection: Upgrade", b"Upgrade: h2c"),
    request(CHAT, b"Content-Length: 3"),
    request(host=b"Host: a b"),
    b"JUNK / HTTP/1.1\r\n\r\n",
    b"\0",
)


def _connect() -> StillConnection:
    """Connect to a worker that judges requests, and admits none."""
    worker = StillWorker()
    worker.trouble = Refusal(JOURNAL_FULL)
    return StillConnection(worker)


@settings(max_examples=tries(300))
@given(
    requests=st.lists(st.sampled_from(_REQUESTS), max_size=5),
    cuts=st.lists(st.integers(0, 1500), max_size=10),
)
def test_answers_do_not_depend_on_cuts(requests: list[bytes], cuts: list[int]) -> None:
    """A caller's bytes get the same answers and the same end in one piece and in many."""
    content = b"".join(requests)
    whole, cut = _connect(), _connect()
    whole.send(content)
    edges = [0, *sorted(min(each, len(content)) for each in cuts), len(content)]
    for start, end in pairwise(edges):
        cut.send(content[start:end])
    assert cut.transport.written == whole.transport.written
    assert cut.transport.ends == whole.transport.ends


@given(content=st.binary(max_size=300), cuts=st.lists(st.integers(0, 300), max_size=5))
def test_bytes_of_any_kind_are_answered_once(content: bytes, cuts: list[int]) -> None:
    """What is no HTTP gets at most one answer, and nothing is written behind it."""
    connection = _connect()
    edges = [0, *sorted(min(each, len(content)) for each in cuts), len(content)]
    for start, end in pairwise(edges):
        connection.send(content[start:end])
    assert connection.take_answers() in ([], [400], [505])
