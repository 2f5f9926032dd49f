"""A collector of spans and metrics, by HTTP and by gRPC, in this process: does as it is told."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import grpc.aio
import uvicorn
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span

TRACES, METRICS = "/v1/traces", "/v1/metrics"
SERVICES = {
    TRACES: "opentelemetry.proto.collector.trace.v1.TraceService",
    METRICS: "opentelemetry.proto.collector.metrics.v1.MetricsService",
}
Attributes = dict[str, str | int | bool]


def attributes_of(said: Any) -> Attributes:
    """Return the attributes of a span or a resource."""
    return {
        each.key: getattr(each.value, each.value.WhichOneof("value")) for each in said.attributes
    }


@dataclass
class Collector:
    """What arrived, and what is answered."""

    listening: socket.socket
    grpc_port: int
    bodies: list[bytes] = field(default_factory=list)
    """Of all deliveries, also of those that were not taken."""
    taken: list[ExportTraceServiceRequest] = field(default_factory=list)
    pushes: list[ExportMetricsServiceRequest] = field(default_factory=list)
    """Those with metrics that were taken."""
    headers: list[dict[str, str]] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    """HTTP statuses of the next answers; 200 behind them."""
    codes: list[grpc.StatusCode] = field(default_factory=list)
    """The same by gRPC."""
    rejected: int = 0
    """Spans or points that each answer says to be refused."""
    hangs: bool = False
    """Whether nothing is answered."""

    @property
    def url(self) -> str:
        """Where it is, by HTTP."""
        return f"http://127.0.0.1:{self.listening.getsockname()[1]}"

    @property
    def grpc_url(self) -> str:
        """Where it is, by gRPC."""
        return f"http://127.0.0.1:{self.grpc_port}"

    @property
    def spans(self) -> list[Span]:
        """All spans that were taken."""
        return list(self._spans())

    def _spans(self) -> Iterator[Span]:
        for message in self.taken:
            for group in message.resource_spans:
                for scope in group.scope_spans:
                    yield from scope.spans

    def named(self, name: str) -> list[Span]:
        """Return the spans of a name."""
        return [span for span in self.spans if span.name == name]

    @property
    def metrics(self) -> list[Metric]:
        """All metrics that were taken."""
        return [
            metric
            for message in self.pushes
            for group in message.resource_metrics
            for scope in group.scope_metrics
            for metric in scope.metrics
        ]

    async def by_http(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer as an ASGI application."""
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        self.headers.append({name.decode(): value.decode() for name, value in scope["headers"]})
        self.bodies.append(body)
        if self.hangs:
            await asyncio.Event().wait()
        status = self.statuses.pop(0) if self.statuses else 200
        answer = b""
        if status == 200:
            assert scope["method"] == "POST"
            answer = self._take(scope["path"], body)
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": answer})

    async def by_grpc(self, path: str, body: bytes, context: Any) -> bytes:
        """Answer a call."""
        self.headers.append(dict(context.invocation_metadata()))
        self.bodies.append(body)
        if self.hangs:
            await asyncio.Event().wait()
        if self.codes:
            await context.abort(self.codes.pop(0), "told to")
        return self._take(path, body)

    def _take(self, path: str, body: bytes) -> bytes:
        if path == METRICS:
            self.pushes.append(ExportMetricsServiceRequest.FromString(body))
            taken = ExportMetricsServiceResponse()
            taken.partial_success.rejected_data_points = self.rejected
            return bytes(taken.SerializeToString())
        assert path == TRACES
        self.taken.append(ExportTraceServiceRequest.FromString(body))
        answer = ExportTraceServiceResponse()
        answer.partial_success.rejected_spans = self.rejected
        return bytes(answer.SerializeToString())


@asynccontextmanager
async def running_collector(port: int = 0, *, grpc_port: int = 0) -> AsyncIterator[Collector]:
    """Run a collector on the loopback, and end it at once afterwards.

    Args:
        port: Where it is by HTTP; anywhere when 0.
        grpc_port: Where by gRPC; nowhere when 0.
    """
    collector = Collector(socket.create_server(("127.0.0.1", port)), grpc_port)
    config = uvicorn.Config(
        collector.by_http,
        log_config=None,
        lifespan="off",
        ws="none",
        interface="asgi3",
        timeout_graceful_shutdown=0,
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server._serve([collector.listening]))
    calls = None
    if grpc_port:
        calls = grpc.aio.server()
        for path, service in SERVICES.items():
            handler = grpc.unary_unary_rpc_method_handler(partial(collector.by_grpc, path))
            generic = grpc.method_handlers_generic_handler(service, {"Export": handler})
            calls.add_generic_rpc_handlers((generic,))
        calls.add_insecure_port(f"127.0.0.1:{collector.grpc_port}")
        await calls.start()
    try:
        yield collector
    finally:
        if calls is not None:
            await calls.stop(0)
        server.should_exit = server.force_exit = True
        await serving
        collector.listening.close()
