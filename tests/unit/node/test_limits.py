"""What the agent leases to workers: sizes, answers, and what becomes of permits."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import httpx
import msgspec
import pytest
from tests.fakes.links import FakeWriter, make_link

from penstock.contract.limits import Ask, Bucket, BucketUse, Lease, Return, Shortage, UseReport
from penstock.contract.node import Granted, LimitsClock, PermitsHeld, Returned, Want
from penstock.kit.clock import ManualClock
from penstock.limits.authority import AuthorityUnavailableError, MemoryAuthority
from penstock.node.calls import CallRefusedError, ControlCalls, NotAnsweredError
from penstock.node.limit_counts import LimitCounts
from penstock.node.limit_uses import LimitUses
from penstock.node.limits import Broker
from penstock.node.use_reports import PATH, UseReports

REQUESTS = Bucket("org/requests:k.key", 100, 500, 121)
PERMITS = Bucket("org/flying:k.key", 4, 0, 1)


class Rig:
    """A broker over an authority in memory."""

    def __init__(self, folder: Path) -> None:
        """Begin with nothing leased."""
        counts = LimitCounts(folder / "limits", ManualClock(), 1, ())
        self.time = counts.time
        self.uses = LimitUses()
        self.broker = Broker(counts, counts.authority, self.uses, frozenset)
        self.writer, self.link = make_link(0, 1)
        self.broker.greet(self.link)
        self.count = 0

    async def ask(self, *asks: Ask, writer: FakeWriter | None = None) -> Granted:
        """Ask and return the answer."""
        writer = writer or self.writer
        self.count += 1
        take_id = f"take-{self.count}"
        self.broker.hear(writer.link, Want(take_id, asks))
        await self.settle()
        answer = writer.messages[-1]
        assert isinstance(answer, Granted)
        assert answer.take_id == take_id
        return answer

    async def settle(self) -> None:
        """Let the broker do what it was told."""
        await self.broker.close()


async def test_the_time_comes_first(tmp_path: Path) -> None:
    """A worker that connects is told the time before anything is leased to it."""
    rig = Rig(tmp_path)
    assert rig.writer.messages == [LimitsClock(rig.time.base_ms)]


async def test_leases_are_large_when_far_and_small_when_near(tmp_path: Path) -> None:
    """A share gets what it wants while there is plenty, then less and less, and one in the end."""
    rig = Rig(tmp_path)
    given = []
    while leases := (await rig.ask(Ask(REQUESTS, 1, 20))).leases:
        given.append(leases[0].amount)
    assert given == [20, 20, 15, 11, 8, 6, 5, 3, 3, 2, 1, 1, 1, 1, 1, 1, 1]
    assert sum(given) == REQUESTS.limit


async def test_a_shortage_is_told_with_its_end(tmp_path: Path) -> None:
    """A worker learns which bucket has too little and when it has enough."""
    rig = Rig(tmp_path)
    await rig.ask(Ask(REQUESTS, 100, 100))
    answer = await rig.ask(Ask(PERMITS, 1, 1), Ask(REQUESTS, 1, 1))
    assert answer.leases is None
    now = rig.time.now_ms() // 500
    assert answer.shortage == Shortage(1, 0, (now + 122) * 500)


async def test_what_is_returned_is_given_again(tmp_path: Path) -> None:
    """An amount that a worker does not need is there for the next one."""
    rig = Rig(tmp_path)
    answer = await rig.ask(Ask(REQUESTS, 100, 100))
    assert answer.leases is not None
    rig.broker.hear(rig.link, Returned((Return(REQUESTS, answer.leases[0].sub_window, 40),)))
    again = await rig.ask(Ask(REQUESTS, 40, 40))
    assert again.leases == (Lease(40, answer.leases[0].sub_window, 0),)


async def test_permits_outlive_the_link_and_not_the_worker(tmp_path: Path) -> None:
    """A lost connection frees nothing; the known end of the worker does."""
    rig = Rig(tmp_path)
    assert (await rig.ask(Ask(PERMITS, 4, 4))).leases
    rig.writer.close()
    other, link = make_link(1, 2)
    rig.broker.greet(link)
    assert (await rig.ask(Ask(PERMITS, 1, 1), writer=other)).shortage == Shortage(0, 0, None)
    rig.broker.bury(0, 1)
    assert (await rig.ask(Ask(PERMITS, 4, 4), writer=other)).leases


async def test_a_worker_that_comes_back_says_what_it_has(tmp_path: Path) -> None:
    """Permits whose return was lost with a connection are free again; those in use are not."""
    rig = Rig(tmp_path)
    await rig.ask(Ask(PERMITS, 4, 4))
    rig.writer.close()
    writer, link = make_link(0, 1)
    rig.broker.greet(link)
    others = Bucket("org/other:k.key", 1, 0, 1)
    rig.broker.hear(link, PermitsHeld(((PERMITS, 1),), is_last=False))
    rig.broker.hear(link, PermitsHeld(((others, 1),)))
    assert (await rig.ask(Ask(others, 1, 1), writer=writer)).leases is None
    assert (await rig.ask(Ask(PERMITS, 4, 4), writer=writer)).shortage == Shortage(0, 3, None)
    assert (await rig.ask(Ask(PERMITS, 3, 3), writer=writer)).leases == (Lease(3, 0, 0),)


class SlowAuthority(MemoryAuthority):
    """Answers when it is told to, or says that it cannot."""

    def __init__(self) -> None:
        """Begin with the gate closed."""
        super().__init__(lambda: 0)
        self.gate = asyncio.Event()
        self.is_away = False

    async def take(
        self, asks: Sequence[Ask], *, take_id: str, holder: str
    ) -> tuple[Lease, ...] | Shortage:
        """See `Authority`."""
        await self.gate.wait()
        if self.is_away:
            raise AuthorityUnavailableError
        return await super().take(asks, take_id=take_id, holder=holder)


def make_slow(folder: Path) -> tuple[SlowAuthority, Broker]:
    """Return a broker over a slow authority."""
    authority = SlowAuthority()
    counts = LimitCounts(folder / "limits", ManualClock(), 1, ())
    return authority, Broker(counts, authority, LimitUses(), frozenset)


async def test_nobody_is_left_without_an_answer(tmp_path: Path) -> None:
    """When the authority is away, a worker is told so."""
    authority, broker = make_slow(tmp_path)
    authority.is_away = True
    authority.gate.set()
    writer, link = make_link(0, 1)
    broker.greet(link)
    broker.hear(link, Want("1", (Ask(PERMITS, 1, 1),)))
    await broker.close()
    assert writer.messages[-1] == Granted("1", None)
    assert broker.unavailable_count == 1


async def test_what_nobody_hears_of_goes_back(tmp_path: Path) -> None:
    """Permits given when the worker is gone already, or just not connected, are free again."""
    for is_dead in (False, True):
        authority, broker = make_slow(tmp_path)
        _, link = make_link(0, 1)
        broker.greet(link)
        broker.hear(link, Want("1", (Ask(PERMITS, 4, 4),)))
        await asyncio.sleep(0)
        link.close()
        if is_dead:
            broker.bury(0, 1)
        authority.gate.set()
        await broker.close()
        assert await authority.take([Ask(PERMITS, 4, 4)], take_id="2", holder="b") == (
            Lease(4, 0, 0),
        )


async def test_use_is_reported_once_for_each_change(tmp_path: Path) -> None:
    """What was taken and returned is in the next report, and nothing twice."""
    rig = Rig(tmp_path)
    answer = await rig.ask(Ask(REQUESTS, 30, 30))
    assert answer.leases is not None
    rig.broker.hear(rig.link, Returned((Return(REQUESTS, answer.leases[0].sub_window, 10),)))
    await rig.settle()
    [use] = rig.uses.collect()
    assert (use.bucket, use.limit, use.used) == (REQUESTS.id, 100, 20)
    assert rig.uses.collect() == ()


async def test_use_is_reported_until_it_is_heard(tmp_path: Path) -> None:
    """A report that is lost is made again, with what has changed since; a refused one is not."""
    (tmp_path / "token").write_text("the-token")
    reports: list[tuple[BucketUse, ...]] = []
    answers = [503, 204, 400, 204]

    def answer(request: httpx.Request) -> httpx.Response:
        report = msgspec.msgpack.decode(request.content, type=UseReport)
        assert (request.url.path, report.node_id) == (PATH, "node-1")
        reports.append(report.uses)
        return httpx.Response(answers.pop(0))

    rig = Rig(tmp_path)
    calls = ControlCalls(
        "http://control", tmp_path / "token", timeout_s=1, transport=httpx.MockTransport(answer)
    )
    reporting = UseReports(calls, "node-1", rig.uses)
    await rig.ask(Ask(REQUESTS, 30, 30))
    await rig.ask(Ask(PERMITS, 2, 2))
    with pytest.raises(NotAnsweredError):
        await reporting.report()
    await rig.ask(Ask(REQUESTS, 10, 10))
    await reporting.report()
    await rig.ask(Ask(PERMITS, 1, 1))
    with pytest.raises(CallRefusedError):
        await reporting.report()
    await reporting.report()
    used = [{use.bucket: use.used for use in uses} for uses in reports]
    both = {REQUESTS.id: 40, PERMITS.id: 2}
    assert used == [both | {REQUESTS.id: 30}, both, {PERMITS.id: 3}]
    await calls.close()
