"""Spans and metrics on their way into a receiver, by HTTP and by gRPC, which does as it likes."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from tests.fakes.collector import Collector, attributes_of, running_collector
from tests.fakes.fake_worker import make_event, make_open
from tests.fakes.ports import free_port
from tests.fakes.worker_process import eventually

from penstock.contract.exposition import Family
from penstock.contract.finished import Course, FinishedRequest, Trace, finished_request
from penstock.contract.metrics import CONNECTIONS, REQUESTS
from penstock.kit.clock import ManualClock
from penstock.node.telemetry.settings import OtlpSettings, Protocol
from penstock.node.telemetry.setup import Telemetry

PROTOCOLS: tuple[Protocol, ...] = ("http/protobuf", "grpc")
HEADER = "Bearer canary-of-a-collector"
ALL = 3
"""Spans of each request here."""
FAMILIES = (
    Family(CONNECTIONS),
    Family(REQUESTS, {(f"o{number}", "m", "chat", "ok"): float(number) for number in range(1_200)}),
)
POINTS = 1_201


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    """Return a collector that speaks both."""
    async with running_collector(grpc_port=free_port()) as running:
        yield running


def _telemetry(
    collector: Collector, protocol: Protocol, monkeypatch: pytest.MonkeyPatch, **settings: object
) -> Telemetry:
    monkeypatch.setenv("OTLP_HEADERS", f"authorization={HEADER.replace(' ', '%20')}")
    endpoint = collector.url if protocol == "http/protobuf" else collector.grpc_url
    said: dict[str, object] = {"timeout_s": 10.0} | settings
    return Telemetry(
        OtlpSettings(endpoint=endpoint, protocol=protocol, headers="env:OTLP_HEADERS", **said),  # type: ignore[arg-type]
        "node-1",
        lambda: FAMILIES,
        ManualClock(),
    )


def _take(telemetry: Telemetry, requests: list[FinishedRequest]) -> None:
    assert telemetry.traces is not None
    telemetry.traces.take(requests)


def _requests(count: int) -> list[FinishedRequest]:
    trace = Trace("1" * 32, "2" * 15 + "0", "3" * 16, is_sampled=True)
    return [
        finished_request(make_event(make_open(str(number))), Course(trace), 0)
        for number in range(count)
    ]


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_spans_arrive(
    collector: Collector, protocol: Protocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A receiver gets them with who sent them, and the header that opens its door."""
    telemetry = _telemetry(collector, protocol, monkeypatch, service_name="edge")
    _take(telemetry, _requests(2))
    await telemetry.flush(20)
    await telemetry.close()
    (message,) = collector.taken
    (group,) = message.resource_spans
    resource = attributes_of(group.resource)
    assert (resource["service.name"], resource["service.instance.id"]) == ("edge", "node-1")
    assert group.scope_spans[0].scope.name == "penstock"
    assert len(collector.spans) == 2 * (ALL + 1)
    assert len(collector.named("request")) == 2
    assert {span.kind for span in collector.named("request")} == {Span.SPAN_KIND_SERVER}
    assert collector.headers[0]["authorization"] == HEADER
    assert HEADER.encode() not in collector.bodies[0]
    figures = {family.metric.name: family.values for family in telemetry.families()}
    assert figures["penstock_otlp_sent_total"] == {("traces",): 8}


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_metrics_arrive(
    collector: Collector, protocol: Protocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All series do, in messages of bounded size, each with who sent it; spans are not needed."""
    telemetry = _telemetry(collector, protocol, monkeypatch, sends_traces=False, sends_metrics=True)
    await telemetry.flush(20)
    await telemetry.close()
    assert len(collector.pushes) == 3
    for message in collector.pushes:
        (group,) = message.resource_metrics
        assert attributes_of(group.resource)["service.instance.id"] == "node-1"
        assert group.scope_metrics[0].scope.name == "penstock"
    points = [point for each in collector.metrics for point in each.sum.data_points]
    assert {attributes_of(each)["organization"]: each.as_double for each in points} == {
        f"o{number}": number for number in range(1_200)
    }
    assert {each.name for each in collector.metrics} == {CONNECTIONS.name, REQUESTS.name}
    assert telemetry.sender.sent == {"metrics": POINTS}
    assert collector.headers[0]["authorization"] == HEADER


async def test_a_push_ends_before_the_next(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A collector that hangs gets a push again as long as it is new; the rest is lost, counted."""
    collector.hangs = True
    telemetry = _telemetry(
        collector, "http/protobuf", monkeypatch, sends_metrics=True, metrics_interval_s=0.2
    )
    running = {asyncio.create_task(part) for _, part in telemetry.parts()}
    lost = telemetry.sender.lost
    await eventually(lambda: lost["metrics", "gave_up"] >= 2 * POINTS, 20)
    assert lost["metrics", "gave_up"] % POINTS == 0
    collector.hangs = False
    await eventually(lambda: len(collector.pushes) >= 3, 20)
    assert not any(part.done() for part in running)
    for part in running:
        part.cancel()
    await telemetry.close()


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_collector_that_is_busy_is_asked_again(
    collector: Collector, protocol: Protocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What says that it has no room gets the same message again; nothing is lost or doubled."""
    collector.statuses = [503, 429]
    collector.codes = [grpc.StatusCode.UNAVAILABLE]
    monkeypatch.setattr("penstock.node.telemetry.sender.FIRST_PAUSE_S", 0.01)
    telemetry = _telemetry(collector, protocol, monkeypatch)
    _take(telemetry, _requests(1))
    await telemetry.flush(20)
    await telemetry.close()
    assert len(collector.spans) == ALL + 1
    assert len(set(collector.bodies)) == 1
    assert telemetry.sender.failures["traces"] == (2 if protocol == "http/protobuf" else 1)
    assert not sum(telemetry.sender.lost.values())


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_collector_that_refuses_is_not_asked_again(
    collector: Collector, protocol: Protocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A No is counted and left alone; of what is taken in part, the rest is counted, too."""
    collector.statuses = [400]
    collector.codes = [grpc.StatusCode.INVALID_ARGUMENT]
    telemetry = _telemetry(collector, protocol, monkeypatch)
    _take(telemetry, _requests(1))
    await telemetry.flush(20)
    collector.rejected = 1
    _take(telemetry, _requests(1))
    await telemetry.flush(20)
    await telemetry.close()
    assert len(collector.bodies) == 2
    assert telemetry.sender.sent["traces"] == ALL
    assert +telemetry.sender.lost == {("traces", "refused"): ALL + 2}


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_collector_that_hangs_holds_nobody_up(
    collector: Collector, protocol: Protocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An end does not wait for it; while it runs, each delivery has its time."""
    collector.hangs = True
    telemetry = _telemetry(collector, protocol, monkeypatch, timeout_s=0.2)
    ((_, part),) = telemetry.parts()
    running = asyncio.create_task(part)
    _take(telemetry, _requests(300))
    await eventually(lambda: telemetry.sender.failures["traces"], 20)
    collector.hangs = False
    await eventually(lambda: collector.taken, 20)
    collector.hangs = True
    _take(telemetry, _requests(10))
    await telemetry.flush(0.05)
    running.cancel()
    await telemetry.close()


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_collector_that_is_gone_is_found_again(
    protocol: Protocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody listens, and later somebody does: what waited arrives."""
    monkeypatch.setattr("penstock.node.telemetry.sender.FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr("penstock.node.telemetry.sender.MOST_PAUSE_S", 0.1)
    port = free_port()
    settings = OtlpSettings(endpoint=f"http://127.0.0.1:{port}", protocol=protocol)
    telemetry = Telemetry(settings, "node-1", tuple, ManualClock())
    _take(telemetry, _requests(1))
    flushing = asyncio.create_task(telemetry.flush(30))
    await eventually(lambda: telemetry.sender.failures["traces"], 20)
    is_grpc = protocol == "grpc"
    async with running_collector(0 if is_grpc else port, grpc_port=port * is_grpc) as collector:
        await flushing
        assert len(collector.spans) == ALL + 1
    await telemetry.close()
