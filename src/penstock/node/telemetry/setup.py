"""What a node sends to a collector, as its settings say. Loaded only where there is one."""

import asyncio
import contextlib
import ssl
from collections.abc import Coroutine, Iterator
from pathlib import Path

import httpx

from penstock import __version__
from penstock.contract.exposition import Family
from penstock.kit.clock import Clock
from penstock.kit.secrets import resolve_secret
from penstock.node import metrics
from penstock.node.telemetry.door import Door, GrpcDoor, HttpDoor
from penstock.node.telemetry.messages import write_resource
from penstock.node.telemetry.push import Families, MetricsPush
from penstock.node.telemetry.sender import Sender
from penstock.node.telemetry.settings import OtlpSettings, read_headers, read_pairs
from penstock.node.telemetry.traces import Traces


class Telemetry:
    """A collector, and what goes there.

    Args:
        settings: Where it is.
        node_id: Which node this is.
        families: Returns all metrics.
        clock: Tells the time.

    Raises:
        ValueError: The settings are not good.
        SecretUnavailableError: What it is shown cannot be read.
        OSError: A PEM file cannot be read, or is none.
        ImportError: The library of gRPC is wanted and not installed.
    """

    def __init__(
        self, settings: OtlpSettings, node_id: str, families: Families, clock: Clock
    ) -> None:
        """See the class."""
        self.tracing = settings.tracing
        self.resource = make_resource(settings, node_id)
        self.sender = Sender(_open_door(settings), timeout_s=settings.timeout_s)
        self.traces: Traces | None = None
        self.metrics: MetricsPush | None = None
        if settings.sends_traces:
            self.traces = Traces(
                self.sender,
                self.resource,
                slow_s=settings.slow_s,
                sends_refused=settings.sends_refused,
            )
        if settings.sends_metrics:
            self.metrics = MetricsPush(
                self.sender,
                self.resource,
                families,
                clock,
                interval_s=settings.metrics_interval_s,
            )

    def parts(self) -> Iterator[tuple[str, Coroutine[None, None, None]]]:
        """Yield what is to run as long as the agent does, each with a name."""
        if self.traces is not None:
            yield "traces", self.traces.run()
        if self.metrics is not None:
            yield "metrics", self.metrics.run()

    async def flush(self, grace_s: float) -> None:
        """Send what is left, as far as there is time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s), asyncio.TaskGroup() as group:
                if self.traces is not None:
                    group.create_task(self.traces.flush())
                if self.metrics is not None:
                    group.create_task(self.metrics.push())

    async def close(self) -> None:
        """Let go of the collector."""
        await self.sender.close()

    def families(self) -> Iterator[Family]:
        """Yield what is told of it in `/metrics`."""
        sender = self.sender
        for metric, counts in (
            (metrics.OTLP_SENT, sender.sent),
            (metrics.OTLP_FAILURES, sender.failures),
        ):
            yield Family(metric, {(signal,): float(count) for signal, count in counts.items()})
        yield Family(metrics.OTLP_LOST, {labels: float(n) for labels, n in sender.lost.items()})


def make_resource(settings: OtlpSettings, node_id: str) -> bytes:
    """Return who is said to send, as a message.

    Raises:
        ValueError: The settings' attributes are none.
    """
    attributes = {
        **read_pairs(settings.resource_attributes),
        "service.name": settings.service_name,
        "service.version": __version__,
        "service.instance.id": node_id,
    }
    return write_resource(attributes)


def _open_door(settings: OtlpSettings) -> Door:
    """Return the way to a collector: what no connection could be asked with is refused here.

    Later it would be a bug, which ends the agent.
    """
    headers = {} if settings.headers is None else read_headers(resolve_secret(settings.headers))
    try:
        httpx.URL(settings.endpoint).host  # noqa: B018 - names of other alphabets are read with it
    except (httpx.InvalidURL, ValueError) as error:
        message = f"endpoint: {error}"
        raise ValueError(message) from None
    if settings.protocol == "http/protobuf":
        return HttpDoor(settings.endpoint, headers, ca=settings.ca, timeout_s=settings.timeout_s)
    ca = None
    if settings.ca is not None:
        ssl.create_default_context(cafile=settings.ca)  # says what is wrong with it, if so
        ca = Path(settings.ca).read_bytes()
    return GrpcDoor(settings.endpoint, headers, ca=ca, timeout_s=settings.timeout_s)
