"""What is sent to a collector, when, and what becomes of what it does not take."""

import asyncio
from collections.abc import Mapping, Sequence

import pytest
from msgspec.structs import replace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from tests.fakes.collector import attributes_of
from tests.fakes.fake_worker import make_event, make_open
from tests.fakes.virtual_loop import run_virtual
from tests.fakes.worker_process import eventually

from penstock.contract.finished import Course, FinishedRequest, RefusedBy, Trace, finished_request
from penstock.contract.node import Tracing
from penstock.kit.clock import ManualClock
from penstock.node.errors import AgentError
from penstock.node.telemetry import traces
from penstock.node.telemetry.choice import connect_telemetry
from penstock.node.telemetry.door import TRACES, NotTakenError, Signal
from penstock.node.telemetry.sender import Sender
from penstock.node.telemetry.settings import OtlpSettings, Protocol, read_environment
from penstock.node.telemetry.setup import Telemetry, make_resource
from penstock.node.telemetry.traces import Traces, is_noteworthy

CANARY = "canary-header-9f2c"
ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}


class ScriptedDoor:
    """Answers as it is told: with how many were refused, or an error; 0 behind them."""

    def __init__(self, *answers: int | Exception) -> None:
        """See the class."""
        self.answers = list(answers)
        self.posted: list[bytes] = []
        self.hangs = False

    async def post(self, signal: Signal, content: bytes) -> int:
        """Take a message."""
        assert signal is TRACES
        self.posted.append(content)
        if self.hangs:
            await asyncio.Event().wait()
        answer = self.answers.pop(0) if self.answers else 0
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def close(self) -> None:
        """Do nothing."""


def _connect(settings: OtlpSettings | None, said: Mapping[str, str]) -> Telemetry | None:
    return connect_telemetry(settings, said, "node-1", tuple, ManualClock())


def _later(wait_s: float | None = 0.001) -> NotTakenError:
    return NotTakenError("status 503", may_retry=True, wait_s=wait_s)


def _request(name: str, *, is_sampled: bool = True, **changes: object) -> FinishedRequest:
    trace = Trace("1" * 32, "2" * 15 + "0", is_sampled=is_sampled)
    request = finished_request(make_event(make_open(name)), Course(trace), 0)
    return replace(request, **changes)


def _traces(door: ScriptedDoor, timeout_s: float = 5.0) -> tuple[Traces, Sender]:
    sender = Sender(door, timeout_s=timeout_s)
    return Traces(sender, b"", slow_s=30.0, sends_refused=False), sender


def _ids(door: ScriptedDoor) -> list[str]:
    found = []
    for content in door.posted:
        message = ExportTraceServiceRequest.FromString(content)
        spans = message.resource_spans[0].scope_spans[0].spans
        found += [str(attributes_of(span)["penstock.event_id"]) for span in spans[::4]]
    return found


async def test_a_message_is_sent_until_it_is_taken() -> None:
    """What may be taken later is sent again, and counts once as sent."""
    door = ScriptedDoor(_later(), _later(), 0)
    sender = Sender(door, timeout_s=5)
    assert await sender.send(TRACES, b"x", 7)
    assert door.posted == [b"x"] * 3
    assert (sender.sent["traces"], sender.failures["traces"]) == (7, 2)
    assert not sum(sender.lost.values())


async def test_what_is_refused_is_given_up() -> None:
    """A message that will never be taken is not sent again; of others parts may be refused."""
    door = ScriptedDoor(NotTakenError("status 400", may_retry=False), 3, 1_000)
    sender = Sender(door, timeout_s=5)
    assert not await sender.send(TRACES, b"x", 7)
    assert await sender.send(TRACES, b"y", 7)
    assert await sender.send(TRACES, b"z", 7)
    assert sender.sent["traces"] == 4
    assert sender.lost == {("traces", "refused"): 7 + 3 + 7}


def test_nobody_waits_for_ever() -> None:
    """A collector that does not answer is asked again for a while, and then given up."""
    door = ScriptedDoor()
    door.hangs = True
    sender = Sender(door, timeout_s=5.0)
    assert not run_virtual(sender.send(TRACES, b"x", 7))
    assert len(door.posted) > 1
    assert sender.lost == {("traces", "gave_up"): 7}


async def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a collector hangs, as much waits as may, what comes then is lost, and is counted."""
    monkeypatch.setattr(traces, "QUEUED_BYTES", 15_000)
    monkeypatch.setattr(traces, "MESSAGE_BYTES", 6_000)
    monkeypatch.setattr(traces, "_PIECE_BYTES", 1)
    door = ScriptedDoor()
    door.hangs = True
    waiting, sender = _traces(door)
    task = asyncio.create_task(waiting.run())
    waiting.take([_request(str(number)) for number in range(8)])
    await eventually(lambda: door.posted, 20)
    for start in range(8, 108, 10):
        waiting.take([_request(str(number)) for number in range(start, start + 10)])
    lost, excess = divmod(sender.lost["traces", "full"], 4)
    assert excess == 0
    assert 60 < lost < 100
    assert 15_000 <= sum(len(piece) for piece, _ in waiting._waiting) < 15_000 + 2_000
    task.cancel()
    sent = len(_ids(door))
    door.hangs = False
    door.posted.clear()
    await waiting.flush()
    assert _ids(door) == [str(number) for number in range(sent, 108 - lost)]
    assert len(door.posted) == 3
    waiting.take([_request("there is room again")])
    await waiting.flush()
    assert _ids(door)[-1] == "there is room again"


async def test_a_message_has_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """What would be too large for a collector is sent as several messages, all of it in order."""
    monkeypatch.setattr(traces, "MESSAGE_BYTES", 5_000)
    monkeypatch.setattr(traces, "_PIECE_BYTES", 1_000)
    door = ScriptedDoor()
    waiting, sender = _traces(door)
    waiting.take([_request(str(number)) for number in range(20)])
    await waiting.flush()
    assert _ids(door) == [str(number) for number in range(20)]
    assert len(door.posted) > 1
    assert max(map(len, door.posted)) < 5_000 + 1_000 + 2_000
    assert sender.sent["traces"] == 20 * 4


async def test_who_is_chosen() -> None:
    """Sampled ones are sent, others when they failed or were slow; none without trace or key."""
    door = ScriptedDoor()
    waiting, _ = _traces(door)
    waiting.take(
        [
            _request("sampled"),
            _request("not", is_sampled=False),
            _request("nobody", organization=""),
            _request("nobody, at the door", organization="", error_source="internal", status=503),
            _request("failed", is_sampled=False, error_source="upstream"),
            replace(_request("foreign", error_source="upstream"), trace=Trace("1" * 32)),
            replace(_request("none", error_source="internal"), trace=None),
        ]
    )
    await waiting.flush()
    assert _ids(door) == ["sampled", "failed"]


@pytest.mark.parametrize(
    ("changes", "slow_s", "sends_refused", "expected"),
    [
        ({}, 30.0, False, False),
        ({"status": 503}, None, False, True),
        ({"error_source": "internal"}, None, False, True),
        ({"error_source": "downstream", "status": 429}, 30.0, False, False),
        ({"status": 429, "refused_by": RefusedBy("r", "tokens")}, None, True, True),
        ({"first_byte_at_ns": None, "finished_at_ns": 10**19}, 30.0, False, True),
        ({"first_byte_at_ns": None, "finished_at_ns": 10**19}, None, False, False),
        ({"finished_at_ns": 10**19}, 30.0, False, False),
    ],
)
def test_what_is_noteworthy(
    changes: dict[str, object], slow_s: float | None, *, sends_refused: bool, expected: bool
) -> None:
    """Errors of gateway and engines, late first bytes, and refusals where they are wanted."""
    request = replace(_request("a"), **changes)
    assert is_noteworthy(request, slow_s=slow_s, sends_refused=sends_refused) == expected


def test_the_standard_environment_is_read() -> None:
    """The variables of OpenTelemetry say where and what; times are milliseconds there."""
    found = read_environment(
        ENDPOINT
        | {
            "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
            "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer%20{CANARY}",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "2500",
            "OTEL_SERVICE_NAME": "edge",
            "OTEL_RESOURCE_ATTRIBUTES": "a=1",
            "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
            "OTEL_TRACES_SAMPLER_ARG": "0.1",
            "OTEL_METRICS_EXPORTER": "otlp",
            "OTEL_METRIC_EXPORT_INTERVAL": "15000",
        }
    )
    assert found == OtlpSettings(
        endpoint="http://collector:4318",
        protocol="grpc",
        headers="env:OTEL_EXPORTER_OTLP_HEADERS",
        timeout_s=2.5,
        service_name="edge",
        resource_attributes="a=1",
        sampler="parentbased_traceidratio",
        ratio=0.1,
        sends_metrics=True,
        metrics_interval_s=15.0,
    )
    assert found.tracing == Tracing(0.1, is_parent_based=True)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, (True, False)),
        ({"OTEL_METRICS_EXPORTER": "otlp"}, (True, True)),
        ({"OTEL_METRICS_EXPORTER": "prometheus"}, (True, False)),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "otlp"}, (False, True)),
    ],
)
async def test_what_is_sent_is_said(said: dict[str, str], expected: tuple[bool, bool]) -> None:
    """Traces go where a collector is named, metrics only when they are wanted there."""
    telemetry = _connect(None, ENDPOINT | said)
    assert telemetry is not None
    sends_traces, sends_metrics = expected
    assert (telemetry.traces is not None, telemetry.metrics is not None) == expected
    assert (telemetry.tracing is not None) == sends_traces
    names = [name for name, part in telemetry.parts() if part.close() is None]
    assert names == ["traces"] * sends_traces + ["metrics"] * sends_metrics
    await telemetry.close()


@pytest.mark.parametrize(
    "said",
    [{}, ENDPOINT | {"OTEL_SDK_DISABLED": "true"}, ENDPOINT | {"OTEL_TRACES_EXPORTER": "none"}],
)
def test_without_a_collector_nothing_is_on(said: dict[str, str]) -> None:
    """Nobody exports who does not say where to, or says that nothing is to be."""
    assert read_environment(said) is None
    assert _connect(None, said) is None


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "collector"}, "endpoint"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://user:pass@collector"}, "endpoint"),
        (ENDPOINT | {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, "protocol"),
        (ENDPOINT | {"OTEL_TRACES_SAMPLER": "jaeger_remote"}, "sampler"),
        (ENDPOINT | {"OTEL_TRACES_SAMPLER_ARG": "1.5"}, "ratio"),
        (ENDPOINT | {"OTEL_TRACES_SAMPLER_ARG": "x"}, "SAMPLER_ARG"),
        (ENDPOINT | {"OTEL_METRIC_EXPORT_INTERVAL": "10"}, "metrics_interval_s"),
        (ENDPOINT | {"OTEL_RESOURCE_ATTRIBUTES": "x"}, "name=value"),
        (ENDPOINT | {"OTEL_EXPORTER_OTLP_CERTIFICATE": "/nowhere/ca.pem"}, "No such file"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://[::1"}, "endpoint"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://xn--"}, "endpoint"),
    ],
)
def test_an_environment_that_is_wrong_turns_it_off(
    said: dict[str, str], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It may be meant for others: what cannot be is named in the log, and the agent starts."""
    assert _connect(None, said) is None
    assert words in caplog.text


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (OtlpSettings(endpoint="http://c", resource_attributes="x"), "name=value"),
        (OtlpSettings(endpoint="https://c", ca="/nowhere/ca.pem"), "No such file"),
        (OtlpSettings(endpoint="https://c", headers="env:ABSENT"), "ABSENT"),
    ],
)
def test_settings_that_are_wrong_are_said_at_the_start(settings: OtlpSettings, words: str) -> None:
    """What is meant for us and cannot be is named, and the agent does not start."""
    with pytest.raises(AgentError, match=words):
        _connect(settings, {})


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
@pytest.mark.parametrize(
    "said", [CANARY, f"a b={CANARY}", f"a={CANARY}%0Ab: c", f"a={CANARY}\u00e9", f"a-bin={CANARY}"]
)
def test_headers_that_are_none_are_not_repeated(
    monkeypatch: pytest.MonkeyPatch, said: str, protocol: Protocol
) -> None:
    """They may be secret, so the error says only what was expected."""
    monkeypatch.setenv("HEADERS", said)
    settings = OtlpSettings(
        endpoint="http://collector:4318", headers="env:HEADERS", protocol=protocol
    )
    with pytest.raises(AgentError) as caught:
        _connect(settings, {})
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize(
    ("sampler", "tracing"),
    [
        ("always_on", Tracing(1.0, is_parent_based=False)),
        ("always_off", Tracing(0.0, is_parent_based=False)),
        ("traceidratio", Tracing(0.25, is_parent_based=False)),
        ("parentbased_always_on", Tracing(1.0)),
        ("parentbased_always_off", Tracing(0.0)),
        ("parentbased_traceidratio", Tracing(0.25)),
    ],
)
def test_samplers_mean_what_their_names_say(sampler: str, tracing: Tracing) -> None:
    """Each of OpenTelemetry's names is a ratio, and whether the caller decides before it."""
    said: Sequence[tuple[str, str]] = (
        ("OTEL_TRACES_SAMPLER", sampler),
        ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
    )
    found = read_environment(ENDPOINT | dict(said))
    assert found is not None
    assert found.tracing == tracing


def test_who_sends_is_said() -> None:
    """A node is an instance of the service; what the operator adds does not replace it."""
    settings = OtlpSettings(
        endpoint="http://c", resource_attributes="deployment.environment.name=x%20y,service.name=no"
    )
    said = attributes_of(Resource.FromString(make_resource(settings, "n1")))
    assert said["deployment.environment.name"] == "x y"
    assert (said["service.name"], said["service.instance.id"]) == ("penstock", "n1")
