"""What has become of a journal's records."""

import msgspec
from tests.fakes.fake_worker import make_event, make_open

from penstock.contract.journal import Begin, Close, Open
from penstock.node.progress import (
    Checkpoint,
    Position,
    Progress,
    decode_checkpoint,
    encode_checkpoint,
)
from penstock.node.recovery import interrupted_events

A, B = make_open("a"), make_open("b")


def test_closed_requests_are_shipped_and_forgotten() -> None:
    """A CLOSE gives its event, and what stays open are the others, in their order."""
    progress = Progress(Checkpoint())
    assert progress.follow(Begin("node/0", 1, 1, 0), Position(1, 10)) is None
    assert progress.follow(A, Position(1, 20)) is None
    assert progress.follow(B, Position(1, 30)) is None
    assert progress.unclosed == [A, B]
    assert progress.follow(Close(make_event(A)), Position(1, 40)) == make_event(A)
    assert progress.unclosed == [B]


def test_what_is_stored_is_followed_and_not_shipped_again() -> None:
    """Before the checkpoint events only close their requests."""
    progress = Progress(Checkpoint(segment=1, offset=30))
    progress.follow(A, Position(1, 20))
    assert progress.follow(Close(make_event(A)), Position(1, 30)) is None
    assert progress.unclosed == []
    assert progress.follow(Close(make_event(B)), Position(1, 31)) == make_event(B)


def test_the_oldest_open_request_holds_its_segment() -> None:
    """The oldest segment needed is that of the oldest open request, else the current one."""
    progress = Progress(Checkpoint())
    progress.follow(A, Position(2, 20))
    progress.follow(B, Position(3, 20))
    assert progress.oldest_open_segment(Position(5, 0)) == 2
    progress.follow(Close(make_event(A)), Position(5, 20))
    assert progress.oldest_open_segment(Position(5, 20)) == 3
    progress.follow(Close(make_event(B)), Position(5, 40))
    assert progress.oldest_open_segment(Position(5, 40)) == 5


def test_a_request_that_went_to_another_target_is_one_request() -> None:
    """Its last OPEN counts, and no other request's segment is given up for it."""
    elsewhere = msgspec.structs.replace(A, upstream="fallback", served_model="other")
    progress = Progress(Checkpoint())
    progress.follow(A, Position(1, 20))
    progress.follow(B, Position(2, 20))
    progress.follow(elsewhere, Position(3, 20))
    assert progress.unclosed == [B, elsewhere]
    assert progress.oldest_open_segment(Position(5, 0)) == 2
    progress.follow(Close(make_event(A)), Position(5, 20))
    assert progress.unclosed == [B]


def test_memory_is_bounded_by_what_is_in_flight() -> None:
    """After a million ended requests nothing of them is kept."""
    progress = Progress(Checkpoint())
    for number in range(1000):
        opened = make_open(str(number))
        progress.follow(opened, Position(1, number * 2))
        progress.follow(Close(make_event(opened)), Position(1, number * 2 + 1))
    assert progress.unclosed == []


def test_checkpoints_survive_the_disk() -> None:
    """A checkpoint is read back as it was, and damage reads as the beginning."""
    checkpoint = Checkpoint(3, 77, 2, damaged=(1,), ended_at_ns=5, done_at_ns=6)
    assert decode_checkpoint(encode_checkpoint(checkpoint)) == checkpoint
    for content in (b"", b"\0" * 40, b'{"segment": "x"}', encode_checkpoint(checkpoint)[:-5]):
        assert decode_checkpoint(content) == Checkpoint()


def test_interrupted_events_are_always_the_same() -> None:
    """The same open requests and time give the same terminal events."""
    opened: list[Open] = [A, B]
    events = interrupted_events(opened, 2_000_000_000_000_000_000)
    assert events == interrupted_events(opened, 2_000_000_000_000_000_000)
    assert [event.outcome for event in events] == ["interrupted"] * 2
    assert events[0].finished_at_ns == 2_000_000_000_000_000_000
    assert interrupted_events([A], 5)[0].finished_at_ns == A.started_at_ns
