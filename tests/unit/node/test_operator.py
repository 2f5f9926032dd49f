"""What engines are made to do for the platform's operator, and that nobody else is asked."""

import json

import httpx
import msgspec
import pytest
from tests.fakes.served_upstreams import ServedUpstreams

from penstock.contract.operations import MAX_TEXT_CHARS, Claim, Outcome, OutcomeReport
from penstock.contract.snapshot import MAX_FOUND, Endpoint, Upstream
from penstock.control.door import MAX_BODY_BYTES
from penstock.engines.operating import find_fault, write_request
from penstock.engines.registry import ENGINES
from penstock.kit.envelope import SecretBytes
from penstock.node.operator import Operator

ONE, TWO = Endpoint("http", "10.0.0.1", 8000), Endpoint("http", "10.0.0.2", 8000, "/two")
TOKEN = "canary-token-77"
LORA = {"lora_name": "legal", "lora_path": "/adapters/legal"}


class Engines:
    """Engines that answer what they are told to, and remember who asked what."""

    def __init__(self, *answers: httpx.Response) -> None:
        """Answer each that asks with the next of these, then all is well."""
        self.answers = list(answers)
        self.seen: list[httpx.Request] = []

    def respond(self, request: httpx.Request) -> httpx.Response:
        """Answer."""
        self.seen.append(request)
        return self.answers.pop(0) if self.answers else httpx.Response(200, text="done")


class _NoControl:
    async def post(self, path: str, content: bytes) -> bytes:
        raise AssertionError(path + content.hex())


async def _perform(
    claim: Claim,
    engines: Engines,
    *,
    endpoints: tuple[Endpoint, ...] = (ONE, TWO),
    credential: str | None = None,
) -> OutcomeReport:
    upstream = Upstream("gpu", "vllm", endpoints, credential=credential)
    operator = Operator(
        _NoControl(),
        "node-1",
        ServedUpstreams(upstream),
        lambda name: SecretBytes(TOKEN.encode()) if name == "credential:c" else None,
        transport=httpx.MockTransport(engines.respond),
    )
    return await operator.perform(claim)


async def test_all_endpoints_do_it() -> None:
    """Each endpoint is asked at the operation's path, with its arguments and our credential."""
    engines = Engines()
    claim = Claim("eop_1", "gpu", "load_lora_adapter", LORA, None)
    report = await _perform(claim, engines, credential="credential:c")
    assert report.outcomes == (Outcome(ONE.url, 200, "done"), Outcome(TWO.url, 200, "done"))
    urls = [str(each.url) for each in engines.seen]
    assert urls == [f"{each.url}/v1/load_lora_adapter" for each in (ONE, TWO)]
    for each in engines.seen:
        assert each.method == "POST"
        assert json.loads(each.content) == LORA
        assert each.headers["authorization"] == f"Bearer {TOKEN}"


async def test_one_endpoint_does_it() -> None:
    """One that is named is asked and no other; told is what it says, without our token."""
    engines = Engines(httpx.Response(500, text=f"no, {TOKEN}!"))
    claim = Claim("eop_1", "gpu", "sleep", {"level": "2"}, TWO.url)
    report = await _perform(claim, engines, credential="credential:c")
    assert [str(each.url) for each in engines.seen] == [f"{TWO.url}/sleep?level=2"]
    assert report.outcomes == (Outcome(TWO.url, 500, "no, [redacted]!"),)


async def test_servers_with_grpc_do_it_once() -> None:
    """What speaks gRPC is the same server, and no HTTP: it is not asked, nor told as a failure."""
    engines = Engines()
    by_grpc = Endpoint("grpc", ONE.host, 8001)
    report = await _perform(
        Claim("eop_1", "gpu", "wake_up", {}, None), engines, endpoints=(ONE, by_grpc)
    )
    assert report.outcomes == (Outcome(ONE.url, 200, "done"),)
    alone = await _perform(
        Claim("eop_1", "gpu", "wake_up", {}, None), engines, endpoints=(by_grpc,)
    )
    assert "no endpoint that is asked by HTTP" in alone.fault
    assert len(engines.seen) == 1


async def test_a_report_of_as_many_as_are_found_can_be_read() -> None:
    """Of all endpoints of the largest upstream something is told, however much each answers."""
    found = tuple(Endpoint("http", f"10.0.{n // 256}.{n % 256}", 8000) for n in range(MAX_FOUND))
    said = httpx.Response(500, content=b"\xff" * MAX_TEXT_CHARS)  # the longest in UTF-8
    report = await _perform(
        Claim("eop_1", "gpu", "wake_up", {}, None), Engines(*[said] * MAX_FOUND), endpoints=found
    )
    assert len({each.endpoint for each in report.outcomes}) == MAX_FOUND
    assert all(each.text for each in report.outcomes)
    assert len(msgspec.msgpack.encode(report)) <= MAX_BODY_BYTES


async def test_redirects_are_not_followed() -> None:
    """An engine cannot send the agent anywhere else."""
    elsewhere = httpx.Response(307, headers={"location": "http://169.254.169.254/"})
    engines = Engines(elsewhere)
    report = await _perform(Claim("eop_1", "gpu", "wake_up", {}, ONE.url), engines)
    assert [each.url.host for each in engines.seen] == [ONE.host]
    assert report.outcomes[0].status == 307


@pytest.mark.parametrize(
    ("claim", "fault"),
    [
        (Claim("o", "gpu", "sleep", {}, "http://169.254.169.254"), "no endpoint"),
        (Claim("o", "other", "sleep", {}, None), "no upstream"),
        (Claim("o", "gpu", "abort_requests", {}, None), "no such operation"),
        (Claim("o", "gpu", "sleep", {"other": "x"}, None), "no such operation"),
        (Claim("o", "gpu", "load_lora_adapter", {"lora_name": "x"}, None), "no such operation"),
    ],
)
async def test_what_the_catalog_does_not_have(claim: Claim, fault: str) -> None:
    """Only endpoints of the catalog and operations of their kind are asked, whoever claims what."""
    engines = Engines()
    report = await _perform(claim, engines)
    assert fault in report.fault
    assert report.outcomes == ()
    assert not engines.seen


async def test_nothing_stands_in_for_a_credential() -> None:
    """Without the upstream's credential nobody is asked."""
    engines = Engines()
    claim = Claim("o", "gpu", "sleep", {}, None)
    report = await _perform(claim, engines, credential="credential:gone")
    assert "credential" in report.fault
    assert not engines.seen


def test_every_operation_can_be_written() -> None:
    """Each has its own name within its kind, and stays below its path whatever it is told."""
    for engine in ENGINES.values():
        names = [each.name for each in engine.operations]
        assert len(set(names)) == len(names)
        for each in engine.operations:
            told = dict.fromkeys((*each.required, *each.optional), "../a b?c")
            assert find_fault(each, told) is None
            path, _ = write_request(each, told)
            assert "{" not in path
            assert "../" not in path
            step_up = dict.fromkeys(told, "..")
            if "{model}" in each.path:
                assert find_fault(each, step_up) is not None
