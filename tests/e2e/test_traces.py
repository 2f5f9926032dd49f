"""Traces and metrics of a node as they are in production: agent, worker, engine and collector."""

import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import msgspec
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from tests.fakes.agent_process import Node, kept_node, running_sink, until
from tests.fakes.collector import Collector, attributes_of, running_collector
from tests.fakes.plain_http import NO_TLS
from tests.fakes.ports import free_port
from tests.fakes.recording_engine import RecordingEngine, running_engine

from penstock.access.rules import create_key

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PROMPT = "canary-prompt-" + secrets.token_hex(8)
CREDENTIAL = "canary-credential-" + secrets.token_hex(8)
KEY = create_key()
OTHER_KEY = create_key()


class Site:
    """A node with a real worker, an engine behind it, and a collector."""

    def __init__(self, node: Node, engine: RecordingEngine, collector: Collector) -> None:
        """Take its parts."""
        self.node, self.engine, self.collector = node, engine, collector
        self.port = free_port()

    async def start(self) -> None:
        """Start the node as the environment says."""
        config = {
            "version": 1,
            "organizations": [{"name": "dev"}],
            "projects": [{"name": "playground", "organization": "dev"}],
            "keys": [{"name": "k", "project": "playground", "secret": "env:CANARY_KEY"}],
            "upstreams": [
                {
                    "name": "engine",
                    "provider": "vllm",
                    "endpoints": [f"http://127.0.0.1:{self.engine.port}"],
                    "credential": "env:CANARY_CREDENTIAL",
                    "forward_headers": ["x-emulator-*"],
                }
            ],
            "routes": [{"name": "r", "upstream": "engine", "model": "served"}],
            "aliases": [{"name": "llama", "route": "r"}],
        }
        self.node.config.write_bytes(msgspec.json.encode(config))
        await self.node.start(worker_command=(), port=self.port)
        await self.node.until_metric("penstock_workers_ready", 1)

    async def ask(
        self, key: str = KEY, model: str = "llama", *, stream: bool = False, **headers: str
    ) -> int:
        """Send a chat and return the answer's status."""
        body = {"model": model, "messages": [{"role": "user", "content": PROMPT}]}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with httpx.AsyncClient(verify=NO_TLS, trust_env=False, timeout=30) as client:
            answer = await client.post(
                f"http://127.0.0.1:{self.port}/v1/chat/completions",
                json=body | {"stream": stream},
                headers={"authorization": f"Bearer {key}", **named},
            )
        return answer.status_code

    async def until_spans(self, name: str, count: int) -> list[Span]:
        """Wait until so many spans of a name arrived, and return them."""
        await until(lambda: len(self.collector.named(name)) >= count, f"{count} of {name}")
        return self.collector.named(name)


@pytest.fixture
async def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    """Return a site that is not started, with what it says to the collector in its environment."""
    monkeypatch.setenv("CANARY_KEY", KEY)
    monkeypatch.setenv("CANARY_CREDENTIAL", CREDENTIAL)
    async with (
        running_sink() as sink,
        kept_node(tmp_path, sink) as node,
        running_collector() as collector,
    ):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        with running_engine() as engine:
            yield Site(node, engine, collector)


async def test_requests_are_traced(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller's trace goes on to the engine; errors and metrics arrive; nothing secret does."""
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "otlp")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
    await site.start()
    traced = f"00-{TRACE}-{SPAN}-01"
    assert await site.ask(stream=True, traceparent=traced) == 200
    assert await site.ask(traceparent=traced.removesuffix("1") + "0") == 200
    assert await site.ask(x_emulator_status="500") == 502
    assert await site.ask(OTHER_KEY, traceparent=traced) == 401
    assert await site.ask(model="unknown", traceparent=traced) == 404
    requests = await site.until_spans("request", 3)
    by_status = {attributes_of(each)["http.response.status_code"]: each for each in requests}
    assert set(by_status) == {200, 502, 404}
    served, failed, refused = (by_status[status] for status in (200, 502, 404))
    assert served.trace_id.hex() == refused.trace_id.hex() == TRACE
    assert served.parent_span_id.hex() == SPAN
    assert failed.trace_id.hex() != TRACE
    said = attributes_of(served)
    assert (said["gen_ai.operation.name"], said["gen_ai.request.model"]) == ("chat", "llama")
    attempts = {span.trace_id.hex(): span for span in site.collector.named("chat served")}
    assert len(attempts) == 2
    attempt = attempts[TRACE]
    assert attempt.parent_span_id == served.span_id
    (stream,) = site.collector.named("stream")
    assert stream.parent_span_id == attempt.span_id
    told = [seen.header["traceparent"] for seen in site.engine.seen]
    assert told[0] == f"00-{TRACE}-{attempt.span_id.hex()}-01"
    assert told[1].startswith(f"00-{TRACE}-")
    assert told[1].endswith("-00")
    described = attributes_of(attempt)
    assert (described["gen_ai.provider.name"], described["server.port"]) == (
        "vllm",
        site.engine.port,
    )
    assert (described["gen_ai.usage.input_tokens"], described["gen_ai.usage.output_tokens"]) == (
        *(3, 5),
    )
    assert await site.node.stop() == 0, site.node.log()
    asked = [each.sum for each in site.collector.metrics if each.name == "penstock_requests_total"]
    outcomes = {attributes_of(each)["outcome"]: each.as_double for each in asked[-1].data_points}
    assert outcomes == {"ok": 2, "upstream_error": 1}
    sent = b"".join(site.collector.bodies)
    assert b"gen_ai.server.request.duration" in sent
    for secret in (KEY, KEY.split("_")[-1], OTHER_KEY, CREDENTIAL, PROMPT):
        assert secret.encode() not in sent
    assert any(CREDENTIAL in str(seen.fields) for seen in site.engine.seen)


async def test_a_collector_that_hangs_changes_nothing(site: Site) -> None:
    """Requests are served and usage is shipped as ever; the node stops in order, and in time."""
    site.collector.hangs = True
    await site.start()
    for _ in range(30):
        assert await site.ask() == 200
    await until(lambda: site.collector.bodies, "the collector hangs")
    await site.node.until_metric("penstock_shipped_events_total", 30)
    assert await site.node.stop() == 0, site.node.log()
