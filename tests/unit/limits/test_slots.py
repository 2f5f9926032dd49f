"""What a node counts of limits outlives its agent, whenever that is killed."""

import contextlib
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
from tests.fakes import limits_hammer
from tests.fakes.effort import tries
from tests.fakes.lease_simulation import LeaseSimulation

from penstock.contract.limits import Ask, Bucket, Lease, Shortage
from penstock.limits import slots as slots_module
from penstock.limits.authority import AuthorityUnavailableError, Header, MemoryAuthority
from penstock.limits.permits import BUCKET_KIND, Permits
from penstock.limits.slots import CHUNK_SLOTS, Slots, SlotsDamagedError, digest_of, text_cells

REQUESTS = Bucket("org/requests:k.key", 10, 500, 121)
PERMITS = Bucket("org/flying:k.key", 300, 0, 1)


class Successors(MemoryAuthority):
    """An authority whose agent is killed now and then; the next one goes on with its file."""

    def __init__(self, path: Path, clock_ms: Callable[[], int], draw: random.Random) -> None:
        """Begin with no file."""
        self._path, self._draw, self._clock = path, draw, clock_ms
        super().__init__(clock_ms, Slots(path))

    def _tick(self) -> int:
        if self._draw.random() < 0.02:
            super().__init__(self._clock, Slots(self._path))
        return super()._tick()


@pytest.mark.parametrize("seed", range(tries(5)))
async def test_no_limit_is_exceeded_by_a_killed_agent(tmp_path: Path, seed: int) -> None:
    """Workers crash, settle late, and agents are killed: every window is within its limit."""
    simulation = LeaseSimulation(
        seed, lambda clock_ms: Successors(tmp_path / "limits", clock_ms, random.Random(seed))
    )
    await simulation.run(1_500)
    simulation.expect_no_limit_exceeded()


async def test_each_holder_keeps_its_permits(tmp_path: Path) -> None:
    """Permits of more holders than fit a slot are known to the next agent, and whose they are."""
    first = MemoryAuthority(lambda: 0, Slots(tmp_path / "limits"))
    for number in range(100):
        await first.take([Ask(PERMITS, 2, 2)], take_id=str(number), holder=f"{number}-1")
    next_one = MemoryAuthority(lambda: 0, Slots(tmp_path / "limits"))
    assert next_one.holders == {f"{number}-1" for number in range(100)}
    assert next_one.permits_of("99-1") == {PERMITS.id: 2}
    for number in range(100):
        await next_one.forget(f"{number}-1")
        answer = await next_one.take([Ask(PERMITS, 300, 300)], take_id=f"all {number}", holder="a")
        free = 100 + 2 * (number + 1)
        assert answer == (Shortage(0, free, None) if free < 300 else (Lease(300, 0, 0),))
    assert MemoryAuthority(lambda: 0, Slots(tmp_path / "limits")).holders == {"a"}


async def test_idle_buckets_make_room() -> None:
    """Slots of buckets in which nothing counts any more are used for others."""
    now_ms = 0
    slots = Slots()
    authority = MemoryAuthority(lambda: now_ms, slots)
    for number in range(6_000):
        now_ms += 1_000
        asks = [
            Ask(Bucket(f"org/requests:k.{number}", 1, 500, 121), 1, 1),
            Ask(Bucket(f"org/flying:k.{number}", 1, 0, 1), 1, 1),
        ]
        leases = await authority.take(asks, take_id=str(number), holder="a")
        assert isinstance(leases, tuple)
        await authority.give_back(asks[1].bucket, leases[1], 1, holder="a")
    assert slots.claimed_count < CHUNK_SLOTS


async def test_there_is_an_end_to_slots() -> None:
    """When all are claimed nobody can decide about more buckets, until some are idle."""
    now_ms = 1_000_000
    authority = MemoryAuthority(lambda: now_ms, Slots(most_chunks=1))
    numbers = count()

    async def take(number: int) -> object:
        ask = Ask(Bucket(f"org/requests:k.{number}", 1, 500, 121), 1, 1)
        return await authority.take([ask], take_id=str(next(numbers)), holder="a")

    for number in range(CHUNK_SLOTS - 1):
        await take(number)
    with pytest.raises(AuthorityUnavailableError, match="all slots are claimed"):
        await take(CHUNK_SLOTS)
    assert isinstance(await take(7), Shortage)
    now_ms += 61_500
    with pytest.raises(AuthorityUnavailableError):
        await take(CHUNK_SLOTS)
    assert isinstance(await take(CHUNK_SLOTS), tuple)


class KilledError(Exception):
    """The process ends here."""


class DyingSlots(Slots):
    """Slots whose process is killed when so many have been released."""

    def __init__(self, path: Path, releases: int) -> None:
        """See the class."""
        super().__init__(path)
        self._releases = releases

    def release(self, number: int) -> None:
        """Release a slot, or die."""
        if not self._releases:
            raise KilledError
        self._releases -= 1
        super().release(number)


@pytest.mark.parametrize("releases", range(4))
def test_a_kill_while_slots_are_released(tmp_path: Path, releases: int) -> None:
    """A bucket of many slots can be used on, however many of them were released by a kill."""
    path = tmp_path / "limits"
    holders = [f"{number}-1" for number in range(100)]
    first = Permits(Slots(path))
    for holder in holders:
        first.add(PERMITS.id, holder, 1)
        first.add(PERMITS.id, holder, -1)
        first.add(PERMITS.id, holder, 2)
    for holder in holders:
        first.add(PERMITS.id, holder, -2)
    slots = DyingSlots(path, releases)
    number = next(each for each in slots.claimed() if slots.kind(each) == BUCKET_KIND)
    with contextlib.suppress(KilledError):
        Permits(slots).free_idle(number)
    for _ in range(2):
        permits = Permits(Slots(path))
        assert permits.total(PERMITS.id) == 0
        for holder in holders:
            permits.add(PERMITS.id, holder, 3)
        assert Permits(Slots(path)).total(PERMITS.id) == 300
        for holder in holders:
            permits.add(PERMITS.id, holder, -3)


async def test_what_counts_is_not_given_up(tmp_path: Path) -> None:
    """A bucket keeps its slot for as long as any of it counts, whatever else is claimed."""
    now_ms = 1_000_000
    authority = MemoryAuthority(lambda: now_ms, Slots(tmp_path / "limits"))
    await authority.take([Ask(REQUESTS, 10, 10)], take_id="all", holder="a")
    await authority.take([Ask(PERMITS, 300, 300)], take_id="all permits", holder="a")
    now_ms += 60_499
    for number in range(3 * CHUNK_SLOTS):
        other = Bucket(f"org/requests:k.{number}", 1, 500, 121)
        await authority.take([Ask(other, 1, 1)], take_id=str(number), holder="a")
    for ask in (Ask(REQUESTS, 1, 1), Ask(PERMITS, 1, 1)):
        assert isinstance(await authority.take([ask], take_id="more", holder="a"), Shortage)


async def test_a_changed_limit_holds_at_once() -> None:
    """What was used counts against the new limit, be it higher or lower."""
    authority = MemoryAuthority(lambda: 0)
    await authority.take([Ask(REQUESTS, 10, 10)], take_id="1", holder="a")
    raised = Bucket(REQUESTS.id, 15, 500, 121)
    assert await authority.take([Ask(raised, 5, 9)], take_id="2", holder="a") == (Lease(5, 0, 0),)
    lowered = Bucket(REQUESTS.id, 3, 500, 121)
    answer = await authority.take([Ask(lowered, 1, 1)], take_id="3", holder="a")
    assert isinstance(answer, Shortage)


async def test_what_was_lost_counts_as_used_for_a_window() -> None:
    """Of buckets that are not known, nothing is given until a window has passed."""
    now_ms = 1_000_000
    slots = Slots()
    slots.header[Header.LOST_AT_MS] = now_ms
    authority = MemoryAuthority(lambda: now_ms, slots)
    answer = await authority.take([Ask(REQUESTS, 1, 10)], take_id="1", holder="a")
    assert answer == Shortage(0, 0, now_ms + 61_000)
    now_ms += 61_000
    assert isinstance(await authority.take([Ask(REQUESTS, 10, 10)], take_id="2", holder="a"), tuple)


async def test_a_late_return_gives_nothing_that_was_not_taken() -> None:
    """What goes back to a bucket that is not known does not add to it."""
    authority = MemoryAuthority(lambda: 1_000_000)
    await authority.give_back(REQUESTS, Lease(5, 2_000, 0), 5, holder="a")
    answer = await authority.take([Ask(REQUESTS, 1, 20)], take_id="1", holder="a")
    assert answer == (Lease(10, 2_000, 0),)


async def test_permits_wait_for_those_who_may_have_some() -> None:
    """Nobody gets permits until each holder in doubt is dead or has said what it has."""
    authority = MemoryAuthority(lambda: 0)
    authority.doubt({"a", "b"})
    await authority.forget("a")
    answer = await authority.take([Ask(PERMITS, 1, 1)], take_id="1", holder="c")
    assert answer == Shortage(0, 0, None)
    await authority.restate("b", {PERMITS: 299})
    answer = await authority.take([Ask(PERMITS, 1, 9)], take_id="2", holder="c")
    assert answer == (Lease(1, 0, 0),)


def fill(path: Path) -> None:
    """Make a file with two slots."""
    slots = Slots(path)
    for name in "ab":
        slots.claim(digest_of(name), 1, content=text_cells(name, 1))
    slots.close()


def cell_of(slot: int, cell: int) -> int:
    """Return where a cell is in the file."""
    return 8 * (slot * slots_module.SLOT_CELLS + cell)


@pytest.mark.parametrize(
    ("at", "content"),
    [
        (0, b"nonsense"),
        (cell_of(0, 1), bytes(8)),
        (cell_of(0, 1), b"\2" + bytes(7)),
        (cell_of(1, 0), b"\xff" * 8),
        (cell_of(3, 0), b"\1" + bytes(7) + digest_of("a")),
    ],
)
def test_damage_is_seen(tmp_path: Path, at: int, content: bytes) -> None:
    """A file that cannot be right is not counted by."""
    path = tmp_path / "limits"
    fill(path)
    assert Slots(path).claimed_count == 2
    with path.open("r+b") as file:
        file.seek(at)
        file.write(content)
    with pytest.raises(SlotsDamagedError):
        Slots(path)


@pytest.mark.parametrize("name", [REQUESTS, PERMITS])
async def test_impossible_numbers_are_seen(tmp_path: Path, name: Bucket) -> None:
    """Counts that no taking could have left are not counted by."""
    path = tmp_path / "limits"
    authority = MemoryAuthority(lambda: 0, Slots(path))
    await authority.take([Ask(name, 5, 5)], take_id="1", holder="a")
    with path.open("r+b") as file:
        content = file.read()
        file.seek(content.index(b"\5" + bytes(7), cell_of(1, 4)))
        file.write(b"\x80" * 8)
    with pytest.raises(SlotsDamagedError):
        MemoryAuthority(lambda: 0, Slots(path))


@pytest.mark.parametrize("size", [5, 100, 1_000_000])
def test_a_cut_file_is_damaged(tmp_path: Path, size: int) -> None:
    """A file that is too short is not counted by."""
    path = tmp_path / "limits"
    fill(path)
    os.truncate(path, size)
    with pytest.raises(SlotsDamagedError):
        Slots(path)


def test_a_chunk_that_is_half_made_is_made_again(tmp_path: Path) -> None:
    """An agent that is killed while the file grows, or at its start, leaves no damage."""
    path = tmp_path / "limits"
    path.write_bytes(bytes(10_000))
    fill(path)
    size = path.stat().st_size
    os.truncate(path, size + 5_000)
    assert Slots(path).claimed_count == 2


def test_a_name_has_its_bound() -> None:
    """A name that is too long is refused, not cut."""
    with pytest.raises(ValueError, match="257 bytes"):
        text_cells("x" * 257, 32)


def hammer_and_kill(path: Path, seed: int) -> list[str]:
    """Have a process lease for a moment, kill it, and return what it said."""
    program = [sys.executable, limits_hammer.__file__, str(path), str(seed)]
    process = subprocess.Popen(program, stdout=subprocess.PIPE)
    assert process.stdout is not None
    first = [process.stdout.readline().decode() for _ in range(1 + 100 * seed)]
    time.sleep(random.Random(seed).random() / 20)
    process.kill()
    lines = process.communicate()[0].decode().splitlines(keepends=True)
    return [*first, *(line for line in lines if line.endswith("\n"))]


async def test_a_kill_at_any_moment_loses_nothing(tmp_path: Path) -> None:
    """Whenever the process is killed, all that it has given is counted by the next one."""
    path, out = tmp_path / "limits", Counter[str]()
    for seed in range(tries(8)):
        for line in hammer_and_kill(path, seed):
            name, amount = line.split()
            out[name] += int(amount)
    authority = MemoryAuthority(lambda: limits_hammer.NOW_MS, Slots(path))
    for bucket in limits_hammer.BUCKETS:
        answer = await authority.take([Ask(bucket, 0, 0)], take_id=bucket.id, holder="b")
        assert isinstance(answer, tuple)
        assert out[bucket.id] <= bucket.limit - answer[0].remaining <= out[bucket.id] + 8 * 6
    assert sum(out.values()) > 1_000
