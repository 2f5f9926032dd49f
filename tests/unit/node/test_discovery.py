"""What is made of what sources say: which endpoints workers see, and what is told of it."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from ipaddress import ip_network
from pathlib import Path

import pytest

from penstock.catalog.discovery import Source
from penstock.contract.snapshot import MAX_FOUND, Endpoint, Snapshot, Upstream
from penstock.kit.addresses import Network
from penstock.kit.clock import ManualClock
from penstock.node.discovery import discovery
from penstock.node.discovery.answer import Answer
from penstock.node.discovery.discovery import Discovery
from penstock.node.publisher import Publisher

GPU, CPU = "dns://gpu:8000", "dns://cpu:8000"
PATIENCE_S = 20.0


def _at(*hosts: str) -> tuple[Endpoint, ...]:
    return tuple(Endpoint("http", host, 8000) for host in hosts)


class Site:
    """A node's store, and sources that say what a test has them say."""

    def __init__(self, folder: Path, clock: ManualClock) -> None:
        """Nothing is named yet."""
        self.clock = clock
        self.publisher = Publisher(folder, clock)
        self.following: dict[str, asyncio.Queue[Answer]] = {}
        self.told = 0
        self.name()

    def name(self, *sources: str) -> None:
        """Have upstreams name these sources, and no others."""
        upstreams = tuple(Upstream(each, "vllm", (), discover=each) for each in sources)
        self.publisher.publish_file(Snapshot(1, 1, (), upstreams, (), (), ()))

    def make(self, networks: Sequence[Network] = ()) -> Discovery:
        """Return what follows them."""
        return Discovery(self.publisher, self.clock, self._follow, networks, self._tell)

    def say(self, source: str, *hosts: str, fault: str = "") -> None:
        """Have a source say something."""
        self.following[source].put_nowait(Answer(_at(*hosts), fault))

    def fail(self, source: str) -> None:
        """Have a source fail."""
        self.following[source].put_nowait(Answer(None, "it is away"))

    def seen(self, source: str) -> list[str]:
        """Return the hosts that the store has for an upstream."""
        [upstream] = [each for each in self.publisher.list_upstreams() if each.name == source]
        return [each.host for each in upstream.endpoints]

    async def until_seen(self, source: str, *hosts: str) -> None:
        """Wait until workers find these."""
        await until(lambda: self.seen(source) == list(hosts))

    async def _follow(self, source: Source) -> AsyncGenerator[Answer, None]:
        queue = self.following[f"{source.kind}://{source.name}:{source.ports[0]}"] = asyncio.Queue()
        while True:
            yield await queue.get()

    def _tell(self) -> None:
        self.told += 1


async def until(condition: Callable[[], object]) -> None:
    """Wait for something to be true."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.002)


@asynccontextmanager
async def running(found: Discovery) -> AsyncIterator[None]:
    """Follow meanwhile."""
    task = asyncio.create_task(found.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """Return one that looks often."""
    monkeypatch.setattr(discovery, "PUBLISH_EVERY_S", 0.002)
    monkeypatch.setattr(discovery, "_LOOK_S", 0.01)
    return Site(tmp_path / "snapshot", ManualClock())


async def test_workers_see_what_sources_say(site: Site) -> None:
    """Endpoints come and go, each source for itself; what nobody names any more is forgotten."""
    site.name(GPU, CPU)
    async with running(site.make()):
        await until(lambda: len(site.following) == 2)
        site.say(GPU, "10.0.0.2", "10.0.0.1", "10.0.0.1")
        site.say(CPU, "10.0.1.1")
        await site.until_seen(GPU, "10.0.0.1", "10.0.0.2")
        await site.until_seen(CPU, "10.0.1.1")
        site.say(GPU)
        await site.until_seen(GPU)
        assert site.told > 0
        site.name(GPU)
        await until(lambda: site.publisher.list_found().keys() == {GPU})


async def test_what_changes_nothing_is_no_new_version(site: Site) -> None:
    """Workers do not look for nothing when a source repeats itself, in another order."""
    site.name(GPU)
    async with running(site.make()):
        await until(lambda: site.following)
        site.say(GPU, "10.0.0.1", "10.0.0.2")
        await site.until_seen(GPU, "10.0.0.1", "10.0.0.2")
        version = site.publisher.version
        site.say(GPU, "10.0.0.2", "10.0.0.1")
        site.say(GPU, "10.0.0.1", "10.0.0.2", "10.0.0.3")
        await site.until_seen(GPU, "10.0.0.1", "10.0.0.2", "10.0.0.3")
        assert site.publisher.version == version + 1


async def test_failures_take_nothing_away_and_are_told(site: Site) -> None:
    """What was found stays while a source fails, and over restarts; figures and alarms say so."""
    site.name(GPU)
    found = site.make()
    async with running(found):
        await until(lambda: site.following)
        site.say(GPU, "10.0.0.1")
        await site.until_seen(GPU, "10.0.0.1")
        assert found.failing == ()
        site.clock.advance(7.0)
        site.fail(GPU)
        site.fail(GPU)
        await until(lambda: found.failing)
        figures = {family.metric.name: family.values for family in found.families()}
    assert figures["penstock_discovery_endpoints"] == {(GPU,): 1.0}
    assert figures["penstock_discovery_age_seconds"] == {(GPU,): 7.0}
    assert figures["penstock_discovery_failures_total"][(GPU,)] >= 1.0
    site.following.clear()
    again = site.make()
    async with running(again):
        await until(lambda: site.following)
        site.fail(GPU)
        await until(lambda: again.failing)
        assert site.seen(GPU) == ["10.0.0.1"]
        site.say(GPU, "10.0.0.1")
        await until(lambda: not again.failing)


async def test_addresses_that_are_not_allowed_are_left_out(site: Site) -> None:
    """Metadata, link-local and the node itself never count; a source with no other is not heard."""
    site.name(GPU)
    found = site.make()
    async with running(found):
        await until(lambda: site.following)
        site.say(GPU, "169.254.169.254", "10.0.0.1", "127.0.0.1", "::ffff:127.0.0.1", "fe80::1")
        await site.until_seen(GPU, "10.0.0.1")
        assert found.failing == (GPU,)
        site.say(GPU, "169.254.169.254")
        site.say(GPU, "10.0.0.1", "10.0.0.2")
        await site.until_seen(GPU, "10.0.0.1", "10.0.0.2")
    site.following.clear()
    found = site.make([ip_network("10.0.0.2/32"), ip_network("127.0.0.0/8")])
    async with running(found):
        await until(lambda: site.following)
        site.say(GPU, "10.0.0.1", "10.0.0.2", "127.0.0.1", "169.254.169.254", "a-name")
        await site.until_seen(GPU, "10.0.0.2", "127.0.0.1")


async def test_an_address_is_one_endpoint(site: Site) -> None:
    """What a source says of it in several ways does not give it the share of several."""
    site.name(GPU)
    async with running(site.make()):
        await until(lambda: len(site.following) == 1)
        said = [
            Endpoint("http", "10.0.0.1", 8000, weight=weight, engine=engine)
            for weight, engine in ((1, ""), (2, "vllm"), (1, "vllm"))
        ]
        site.following[GPU].put_nowait(Answer((*said, *_at("10.0.0.2"))))
        await site.until_seen(GPU, "10.0.0.1", "10.0.0.2")
        [upstream] = site.publisher.list_upstreams()
        assert upstream.endpoints == (said[1], *_at("10.0.0.2"))


async def test_a_source_cannot_flood_workers(site: Site) -> None:
    """Of more endpoints than there may be, the same ones are taken each time."""
    site.name(GPU)
    hosts = [f"10.0.{n // 256}.{n % 256}" for n in range(MAX_FOUND + 3)]
    found = site.make()
    async with running(found):
        await until(lambda: site.following)
        site.say(GPU, *hosts)
        await until(lambda: len(site.seen(GPU)) == MAX_FOUND)
        assert found.failing == (GPU,)


async def test_a_new_upstream_waits_for_its_first_endpoints(site: Site) -> None:
    """Who is to tell workers of it waits for a good answer or a bad one, and no longer."""
    site.name(GPU)
    found = site.make()
    looking = asyncio.create_task(found.look(PATIENCE_S))
    await until(lambda: site.following)
    site.say(GPU, "10.0.0.1")
    await looking
    assert site.seen(GPU) == ["10.0.0.1"]
    site.name(GPU, CPU)
    await found.look(0.01)
    assert site.seen(CPU) == []
    looking = asyncio.create_task(found.look(PATIENCE_S))
    site.fail(CPU)
    await looking
    async with running(found):
        pass


async def test_a_source_of_another_version_is_told_of(site: Site) -> None:
    """What this version cannot read is a failure of that source, and of nothing else."""
    site.name("etcd://x/y", GPU)
    found = site.make()
    async with running(found):
        await until(lambda: found.failing == ("etcd://x/y",))
        site.say(GPU, "10.0.0.1")
        await site.until_seen(GPU, "10.0.0.1")
