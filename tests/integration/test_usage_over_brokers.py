"""Usage by way of a broker, which may do what it likes: each event counts once.

NATS is a real server; Kafka is librdkafka's own cluster, which speaks the protocol.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from itertools import count
from pathlib import Path
from typing import TypeVar

import pytest
from msgspec.structs import replace
from sqlalchemy import func, select
from tests.fakes.brokers import NO_PROOF, Carrier, KafkaCarrier, NatsCarrier
from tests.fakes.databases import sqlite_database
from tests.fakes.fake_worker import FakeJournal, make_event, make_open
from tests.fakes.kafka_cluster import (
    NO_COORDINATOR,
    OFFSET_COMMIT,
    PRODUCE,
    TOO_LARGE,
    KafkaCluster,
    kafka_cluster,
)
from tests.fakes.nats_server import NatsServer, nats_server
from tests.fakes.usage_room import RoomStore
from tests.fakes.worker_process import eventually

from penstock.contract.journal import Close
from penstock.contract.usage import UsageBatch, UsageReceipt, encode_batch
from penstock.contract.usage_messages import ANSWERS, STREAM, SUBJECT, BatchMessage, batch_mac
from penstock.control.broker_usage import BrokerUsage
from penstock.kit.clock import SystemClock
from penstock.metering.tables import UsageEvents
from penstock.node.checkpoints import Checkpoints
from penstock.node.delivery import BatchRefusedError, NotDeliveredError, deliver
from penstock.node.shipper import Shipper
from penstock.node.transport.broker import BrokerStore
from penstock.storage.database import Database
from penstock.storage.errors import DatabaseUnavailableError
from penstock.storage.scope import Scope

TOKEN = "node-token-of-tests"
WAIT_S = 60.0

Answer = TypeVar("Answer")


@pytest.fixture(scope="module")
def server() -> Iterator[NatsServer]:
    """A NATS server for all tests of this file."""
    with nats_server() as running:
        yield running


@pytest.fixture
def cluster() -> Iterator[KafkaCluster]:
    """A Kafka cluster."""
    with kafka_cluster(STREAM, ANSWERS) as running:
        yield running


@pytest.fixture(params=["nats", "kafka"])
def carrier(request: pytest.FixtureRequest) -> Carrier:
    """A broker."""
    if request.param == "nats":
        return NatsCarrier(request.getfixturevalue("server"))
    return KafkaCarrier(request.getfixturevalue("cluster"))


@pytest.fixture
async def database(sqlite_template: Path, tmp_path: Path) -> AsyncIterator[Database]:
    """An empty database."""
    async with sqlite_database(sqlite_template, tmp_path) as opened:
        yield opened


class CrashError(Exception):
    """The control plane is no more."""


class Room(RoomStore):
    """The usage store, which the node also asks directly."""

    async def close(self) -> None:
        """Let go of nothing."""


class Site:
    """A node, a broker and a control plane."""

    def __init__(self, folder: Path, carrier: Carrier, database: Database) -> None:
        """Make them."""
        for name in ("journal", "shipper"):
            (folder / name).mkdir()
        (folder / "token").write_text(TOKEN)
        self.carrier = carrier
        self.room = Room(database)
        self.journal = FakeJournal(folder / "journal")
        self.count = 0
        self.taken = 0
        self.crashes = 0
        """How often the control plane is to die behind a commit."""
        self.absences = 0
        """How often its database is to be away."""
        self.store = BrokerStore(
            carrier.for_node(),
            token_path=folder / "token",
            direct=self.room,
            clock=SystemClock(),
            answer_timeout_s=3.0,
        )
        self.shipper = Shipper(
            journals=folder / "journal",
            checkpoints=Checkpoints(folder / "shipper"),
            refused=folder / "refused",
            node_id="node-test",
            store=self.store,
            clock=SystemClock(),
            random=lambda: 0.0,
            retention_s=72 * 3600.0,
        )
        self.control = BrokerUsage(carrier.for_control(), TOKEN.encode(), self._take)

    async def _take(self, batch: UsageBatch) -> UsageReceipt:
        if self.absences:
            self.absences -= 1
            raise DatabaseUnavailableError
        receipt = await self.room.send(batch)
        self.taken += 1
        if self.crashes:
            self.crashes -= 1
            raise CrashError  # committed, and neither answered nor acknowledged
        return receipt

    def serve(self, count: int) -> None:
        """Let the worker serve requests."""
        for _ in range(count):
            opened = make_open(f"event-{self.count}")
            self.count += 1
            self.journal.write(opened)
            self.journal.write(Close(make_event(opened)))

    async def ship_until(self, condition: Callable[[], bool]) -> None:
        """Ship until it is so."""
        async with asyncio.timeout(WAIT_S):
            while not condition():
                pause_s = await self.shipper.ship_once()
                await asyncio.sleep(pause_s)

    async def send(self, batch: UsageBatch) -> UsageReceipt:
        """Send a batch until it is delivered, or refused."""
        return await self.surely(lambda: self.store.send(batch))

    async def surely(self, send: Callable[[], Awaitable[Answer]]) -> Answer:
        """Send until there is an answer, which may be late for the first time."""
        async with asyncio.timeout(WAIT_S):
            while True:
                try:
                    return await send()
                except BatchRefusedError:
                    raise
                except NotDeliveredError:
                    continue

    @property
    def is_shipped(self) -> bool:
        """Whether the node knows that all is stored."""
        return self.shipper.totals.shipped >= self.count and self.shipper.is_idle


@pytest.fixture
async def site(tmp_path: Path, carrier: Carrier, database: Database) -> AsyncIterator[Site]:
    """Return a node, a broker, and a control plane that does not run."""
    await carrier.forget()
    made = Site(tmp_path, carrier, database)
    yield made
    await made.store.close()


async def _left(carrier: Carrier) -> int:
    """Return how many batches the broker has once it was told what became of them."""
    with suppress(TimeoutError):
        async with asyncio.timeout(WAIT_S):
            while await carrier.left():  # noqa: ASYNC110 - nobody would tell
                await asyncio.sleep(0.05)
    return await carrier.left()


@asynccontextmanager
async def _running(site: Site) -> AsyncIterator[None]:
    """Run the control plane's end."""
    task = asyncio.create_task(site.control.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _stored(database: Database) -> tuple[int, int]:
    """Return how many events are stored, and their output tokens."""
    statement = select(func.count(), func.sum(UsageEvents.output_tokens))
    async with database.read(Scope.all_organizations()) as session:
        count, tokens = (await session.rows(statement))[0]
    return count, int(tokens or 0)


async def test_events_come_by_way_of_the_broker(site: Site, database: Database) -> None:
    """What workers wrote is stored once the node is told so; nothing is left on the broker."""
    site.serve(1_200)
    async with _running(site):
        await site.ship_until(lambda: site.is_shipped)
        # Confirmed behind its answer: who ends in between leaves it to others.
        assert await _left(site.carrier) == 0
    assert await _stored(database) == (1_200, 1_200 * 11)
    assert site.taken >= 3


@pytest.mark.parametrize("carrier", ["nats"], indirect=True)
async def test_a_stream_that_an_operator_made_is_used(site: Site, database: Database) -> None:
    """A stream with other bounds than ours is taken as it is."""
    assert isinstance(site.carrier, NatsCarrier)
    async with site.carrier.client() as client:
        await client.jetstream().add_stream(
            name=STREAM, subjects=[f"{SUBJECT}.*"], max_bytes=64 * 1024 * 1024, max_age=60.0
        )
        site.serve(3)
        async with _running(site):
            await site.ship_until(lambda: site.is_shipped)
        info = await client.jetstream().stream_info(STREAM)
    assert await _stored(database) == (3, 33)
    assert info.config.max_bytes == 64 * 1024 * 1024


async def test_a_control_plane_that_dies_behind_its_commit_counts_once(
    site: Site, database: Database
) -> None:
    """The broker delivers again what was not acknowledged, and nothing is counted again."""
    site.serve(40)
    site.crashes = 2
    async with _running(site):
        await site.ship_until(lambda: site.is_shipped)
    assert site.taken >= 3
    assert await _stored(database) == (40, 40 * 11)
    assert site.room.stored == 40


@pytest.mark.parametrize("carrier", ["kafka"], indirect=True)
async def test_what_was_stored_before_its_offset_was_committed_counts_once(
    site: Site, database: Database
) -> None:
    """A control plane that ends between answer and offset leaves a stored batch to others."""
    assert isinstance(site.carrier, KafkaCarrier)
    cluster = site.carrier.cluster
    cluster.fail(OFFSET_COMMIT, *[NO_COORDINATOR] * 1_000)
    async with _running(site):
        site.serve(4)
        await site.ship_until(lambda: site.is_shipped)
    before = site.taken
    assert await site.carrier.left() >= 1
    cluster.heal(OFFSET_COMMIT)
    async with _running(site):
        await eventually(lambda: site.taken > before, WAIT_S)
        assert await _left(site.carrier) == 0
    assert await _stored(database) == (4, 4 * 11)


async def test_what_comes_while_the_database_is_away_is_given_again(
    site: Site, database: Database
) -> None:
    """A batch that cannot be stored now is put back, not refused and not lost."""
    async with _running(site):
        site.serve(2)
        await site.ship_until(lambda: site.is_shipped)
        site.absences = 2
        site.serve(5)
        await site.ship_until(lambda: site.is_shipped)
        assert await _left(site.carrier) == 0
    assert (site.absences, site.shipper.totals.refused) == (0, 0)
    assert await _stored(database) == (7, 7 * 11)


async def test_a_broker_that_is_killed_loses_nothing(site: Site, database: Database) -> None:
    """While it is away, usage waits on the node's disk; it is started again, and all comes once."""
    async with _running(site):
        site.serve(20)
        await site.ship_until(lambda: site.is_shipped)
        site.carrier.kill()
        site.serve(30)
        await site.ship_until(lambda: site.shipper.totals.failures > 1)
        assert await _stored(database) == (20, 20 * 11)
        site.carrier.start()
        site.serve(10)
        await site.ship_until(lambda: site.is_shipped)
    assert await _stored(database) == (60, 60 * 11)


async def test_without_a_control_plane_nothing_is_delivered(site: Site, database: Database) -> None:
    """That the broker has a batch is no receipt: the node keeps it, and it counts once later."""
    async with _running(site):
        site.serve(1)
        await site.ship_until(lambda: site.is_shipped)
    site.serve(5)
    batch = UsageBatch("node-test/0", 1, (make_event(make_open("other")),))
    with pytest.raises(NotDeliveredError):
        await site.store.send(batch)
    async with _running(site):
        receipt = await site.send(batch)
        assert receipt.stored + receipt.duplicates == 1
        await site.ship_until(lambda: site.is_shipped)
    assert await _stored(database) == (7, 7 * 11)


async def test_who_is_no_node_can_neither_book_nor_answer(site: Site, database: Database) -> None:
    """A broker is trusted with nothing: batches and answers without proof change nothing."""
    content = encode_batch(UsageBatch("node-test/0", 1, (make_event(make_open("forged")),)))
    answer_to = site.carrier.answer_to
    async with _running(site):
        site.serve(1)
        await site.ship_until(lambda: site.is_shipped)
        for mac in ("", NO_PROOF, batch_mac(b"another token", answer_to, content)):
            await site.carrier.forge(BatchMessage(content, answer_to, mac))
        await eventually(lambda: site.control.forged >= 3, WAIT_S)
        assert await _left(site.carrier) == 0  # what is forged is not given again
    assert await _stored(database) == (1, 11)

    # Nobody takes it now, and somebody says that it is stored.
    before = site.store.dropped  # late answers of before may be among them
    tries = count()
    async with site.carrier.lying(), asyncio.timeout(WAIT_S):
        while site.store.dropped == before:
            # Another one each time: the same is not put on the broker again for a minute, and an
            # answer that is lost, or takes longer than one try, would be waited for in vain.
            mine = (make_event(make_open(f"mine {next(tries)}")),)
            with pytest.raises(NotDeliveredError):
                await site.store.send(UsageBatch("node-test/0", 1, mine))


async def test_a_batch_that_is_refused_or_too_large_goes_in_parts(
    site: Site, database: Database
) -> None:
    """What the control plane never takes is said at once; what the broker never takes is parted."""
    labels = tuple((f"label{number}", "x" * 64) for number in range(16))
    opened = [make_open(f"large-{number}") for number in range(1_000)]
    events = [make_event(one) for one in opened]
    large = tuple(replace(event, labels=labels, request_id="r" * 1_000) for event in events)
    async with _running(site):
        site.serve(1)
        await site.ship_until(lambda: site.is_shipped)
        if isinstance(site.carrier, KafkaCarrier):
            site.carrier.cluster.fail(PRODUCE, TOO_LARGE)  # it takes all by itself
        batch = UsageBatch("node-test/0", 1, large[:500])
        delivered = await site.surely(lambda: deliver(site.store, batch))
        assert (delivered.refused, delivered.is_told) == ([], True)
        bad = UsageBatch("node-test/0", 1, (replace(events[600], input_tokens=-1),))
        with pytest.raises(BatchRefusedError, match="negative"):
            await site.send(bad)
    assert (await _stored(database))[0] == 501
    assert site.taken > 2
