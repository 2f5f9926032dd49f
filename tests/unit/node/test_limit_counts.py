"""Time of limits, and what an agent does when what it counted is lost."""

from pathlib import Path

import pytest

from penstock.contract.limits import Ask, Bucket, Shortage
from penstock.kit.clock import ManualClock
from penstock.node.limit_counts import LimitCounts, read_boot

REQUESTS = Bucket("org/requests:k.key", 10, 500, 121)
PERMITS = Bucket("org/flying:k.key", 10, 0, 1)


def open_counts(
    folder: Path, clock: ManualClock, *, boot: int = 1, living: str = ""
) -> LimitCounts:
    """Return the counts of an agent that has just started."""
    return LimitCounts(folder / "limits", clock, boot, living.split())


async def take(counts: LimitCounts, bucket: Bucket, take_id: str) -> object:
    """Take all of a bucket."""
    return await counts.authority.take([Ask(bucket, 10, 10)], take_id=take_id, holder="a")


def test_time_goes_on_from_one_agent_to_the_next(tmp_path: Path) -> None:
    """Workers that outlive their agent reckon by the same time under the next one."""
    clock = ManualClock(now_s=100.0)
    first = open_counts(tmp_path, clock)
    assert first.time.now_ms() == clock.wall_ns() // 1_000_000
    clock.advance(5)
    clock.now_ns -= 3_600 * 10**9  # the wall clock is put back an hour
    assert open_counts(tmp_path, clock).time.base_ms == first.time.base_ms


@pytest.mark.parametrize("boot", [0, 2])
async def test_another_boot_does_not_take_time_back(tmp_path: Path, boot: int) -> None:
    """At another boot time comes from the wall clock, and not from before what was seen."""
    clock = ManualClock(now_s=50_000.0)
    first = open_counts(tmp_path, clock, boot=boot and 1)
    assert isinstance(await take(first, REQUESTS, "1"), tuple)
    then_ms = first.time.now_ms()
    back = ManualClock(clock.now_ns - 7_200 * 10**9, now_s=3.0)
    assert open_counts(tmp_path, back, boot=boot).time.now_ms() == then_ms
    later = ManualClock(clock.now_ns + 20 * 10**9, now_s=3.0)
    again = open_counts(tmp_path, later, boot=boot and 3)
    assert isinstance(await take(again, REQUESTS, "2"), Shortage)
    later.advance(41.5)
    assert isinstance(await take(again, REQUESTS, "3"), tuple)


async def test_a_first_start_is_free(tmp_path: Path) -> None:
    """A node that never leased anything begins with all of its limits."""
    counts = open_counts(tmp_path, ManualClock())
    assert isinstance(await take(counts, REQUESTS, "1"), tuple)
    assert isinstance(await take(counts, PERMITS, "2"), tuple)


@pytest.mark.parametrize("loss", ["damaged", "deleted", "unreadable"])
async def test_what_is_lost_counts_as_used(tmp_path: Path, loss: str) -> None:
    """Without its counts a node gives nothing for a window, and permits when all are known."""
    clock = ManualClock()
    await take(open_counts(tmp_path, clock), REQUESTS, "1")
    path = tmp_path / "limits"
    match loss:
        case "damaged":
            path.write_bytes(b"nonsense" * 1_000)
        case "deleted":
            path.unlink()
        case _:
            path.unlink()
            path.mkdir()
    counts = open_counts(tmp_path, clock, living="0-00000001")
    assert isinstance(await take(counts, REQUESTS, "2"), Shortage)
    assert isinstance(await take(counts, PERMITS, "3"), Shortage)
    clock.advance(61.5)
    assert isinstance(await take(counts, REQUESTS, "4"), tuple)
    await counts.authority.restate("0-00000001", {})
    assert isinstance(await take(counts, PERMITS, "5"), tuple)
    assert (tmp_path / "limits.damaged").exists() == (loss == "damaged")


def test_a_boot_has_a_number() -> None:
    """The kernel says which boot it is, in a number that a cell can hold."""
    assert 0 < read_boot() < 2**63
