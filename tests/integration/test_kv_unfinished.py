"""What a connection brought, as the system counts it."""

import socket
from collections.abc import Iterator

import pytest

from penstock.node.caches.unfinished import MOST_BYTES, Unfinished

_PIECE = bytes(1 << 20)


class _Line:
    """A connection, and who sends over it."""

    def __init__(self, engine: socket.socket, ours: socket.socket) -> None:
        self._engine = engine
        self.ours = ours
        self.unfinished = Unfinished(ours.fileno(), ours.getpeername()[1])

    def send(self, size: int) -> None:
        """Have so much read."""
        left = size
        while left:
            count = min(left, len(_PIECE))
            self._engine.sendall(_PIECE[:count])
            left -= count
            while count:
                count -= len(self.ours.recv(count))


@pytest.fixture
def line() -> Iterator[_Line]:
    """Return one over which nothing was sent."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as ours,
    ):
        engine, _ = server.accept()
        with engine:
            yield _Line(engine, ours)


def test_what_does_not_end_is_too_long(line: _Line) -> None:
    """However slowly it comes; it is said at the second look."""
    assert not line.unfinished.look()
    for _ in range(2):
        line.send(MOST_BYTES // 2)
        assert not line.unfinished.look()
    line.send(1)
    assert [line.unfinished.look() for _ in range(3)] == [False, True, True]


def test_what_ends_may_go_on_for_ever(line: _Line) -> None:
    """Messages do not add up, and what was read in time is not too long."""
    for _ in range(3):
        assert not line.unfinished.look()
        line.send(MOST_BYTES + 1)
        assert not line.unfinished.look()
        line.unfinished.ended()


def test_of_what_is_gone_nothing_is_said(line: _Line) -> None:
    """Nor of another connection that has the same file by now."""
    assert not Unfinished(line.ours.fileno(), 1).look()
    line.send(MOST_BYTES + 1)
    line.ours.close()
    assert [line.unfinished.look() for _ in range(3)] == [False] * 3
