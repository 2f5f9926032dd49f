"""A real NVIDIA Dynamo, asked through a real worker: what callers see, and what is counted."""

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import msgspec
import pytest
from tests.fakes.dynamo import CONTEXT_TOKENS, MODEL, running_dynamo
from tests.fakes.plain_http import NO_TLS
from tests.fakes.served_upstreams import ServedUpstreams
from tests.fakes.worker_process import KEY, WorkerProcess, make_snapshot, running_worker

from penstock.contract.snapshot import Deployment, Endpoint, Upstream
from penstock.engines.dynamo import DYNAMO
from penstock.engines.load import Figures, read_metrics
from penstock.kit.clock import SystemClock
from penstock.node.health import Health

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]  # the first time it is installed

SOON_S = 20.0
CHAT = "/v1/chat/completions"
QUESTION = [{"role": "user", "content": "Say hello to everybody in this house, please."}]


@dataclass
class Site:
    """A Dynamo, and a worker before it."""

    dynamo: httpx.Client
    worker: WorkerProcess
    client: httpx.Client

    def figure(self, start: str) -> float:
        """Return the sum of Dynamo's metrics whose line begins so."""
        lines = self.dynamo.get("/metrics").text.splitlines()
        return sum(float(text.rsplit(" ", 1)[1]) for text in lines if text.startswith(start))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Start both once."""
    folder = tmp_path_factory.mktemp("dynamo")
    with running_dynamo(folder) as url:
        plain = make_snapshot([int(url.rsplit(":", 1)[1])])
        (upstream,), (deployment,) = plain.upstreams, plain.deployments
        snapshot = msgspec.structs.replace(
            plain,
            upstreams=(msgspec.structs.replace(upstream, provider="dynamo"),),
            deployments=(msgspec.structs.replace(deployment, model=MODEL),),
        )
        headers = {"authorization": f"Bearer {KEY}"}
        with (
            running_worker(folder / "worker", [], snapshot=snapshot) as worker,
            httpx.Client(base_url=url, verify=NO_TLS) as dynamo,
            httpx.Client(base_url=worker.url, headers=headers, verify=NO_TLS, timeout=60) as client,
        ):
            yield Site(dynamo, worker, client)


def _chat(**members: object) -> dict[str, object]:
    return {"model": "model-a", "messages": QUESTION, "max_tokens": 12, **members}


def _events(client: httpx.Client, **members: object) -> list[Any]:
    with client.stream("POST", CHAT, json=_chat(stream=True, **members)) as answer:
        assert answer.status_code == 200, answer.read()
        lines = [text.removeprefix("data: ") for text in answer.iter_lines() if text]
    assert lines[-1] == "[DONE]"
    return [msgspec.json.decode(text) for text in lines[:-1]]


def _until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def test_a_plain_chat_is_counted_as_dynamo_counts_it(site: Site) -> None:
    """A plain answer is relayed, and its usage event has Dynamo's own figures."""
    count = len(site.worker.events())
    answer = site.client.post(CHAT, json=_chat()).json()
    assert answer["choices"][0]["message"]["content"].startswith(" word")
    event = site.worker.wait_events(count + 1)[-1]
    usage = answer["usage"]
    assert (event.input_tokens, event.output_tokens) == (usage["prompt_tokens"], 12)
    assert event.cached_input_tokens == usage["prompt_tokens_details"]["cached_tokens"]
    assert event.usage_source == "engine"


def test_a_stream_is_counted_though_its_caller_asked_for_no_usage(site: Site) -> None:
    """The usage that Dynamo is asked for is counted, and hidden from whom did not ask."""
    count = len(site.worker.events())
    events = _events(site.client)
    assert len([event for event in events if event["choices"][0]["delta"].get("content")]) > 1
    assert not any(event.get("usage") for event in events)
    event = site.worker.wait_events(count + 1)[-1]
    assert (event.output_tokens, event.outcome, event.usage_source) == (12, "ok", "engine")


def test_both_ways_of_asking_count_alike(site: Site) -> None:
    """The same question has as many tokens streamed as not; the second time some are cached."""
    text = [{"role": "user", "content": "How many tokens has this? " * 8}]
    plain = site.client.post(CHAT, json=_chat(messages=text)).json()["usage"]
    *_, last = _events(site.client, messages=text, stream_options={"include_usage": True})
    usage = last["usage"]
    assert usage["prompt_tokens"] == plain["prompt_tokens"] > 200
    assert usage["completion_tokens"] == plain["completion_tokens"] == 12
    assert usage["prompt_tokens_details"]["cached_tokens"] >= 16


def test_a_stream_that_is_left_ends_in_dynamo(site: Site) -> None:
    """When a caller leaves, Dynamo counts a request as cancelled and has none on its way."""
    count = len(site.worker.events())
    cancelled = site.figure("dynamo_frontend_model_cancellation_total")
    with site.client.stream("POST", CHAT, json=_chat(stream=True, max_tokens=4000)) as answer:
        said = (text for text in answer.iter_lines() if '"content"' in text)
        for _ in range(10):
            next(said)
        _until(lambda: site.figure("dynamo_frontend_inflight_requests") == 1, "it is on its way")
    _until(
        lambda: site.figure("dynamo_frontend_model_cancellation_total") == cancelled + 1,
        "Dynamo cancels it",
    )
    _until(lambda: not site.figure("dynamo_frontend_inflight_requests"), "nothing is on its way")
    event = site.worker.wait_events(count + 1)[-1]
    assert event.outcome == "caller_gone"
    assert 0 < event.output_tokens < 4000


def test_an_unknown_model_never_reaches_dynamo(site: Site) -> None:
    """A model that is no alias is 404 from the gateway, in OpenAI's shape."""
    asked = site.figure("dynamo_frontend_requests_total")
    answer = site.client.post(CHAT, json=_chat(model="nope"))
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    assert answer.headers["x-penstock-error-source"] == "gateway"
    assert site.figure("dynamo_frontend_requests_total") == asked


def test_several_choices_are_refused(site: Site) -> None:
    """Dynamo answers `n` of 2 with one choice and says nothing, so it is not asked: 400."""
    direct = site.dynamo.post(CHAT, json=_chat(model=MODEL, n=2)).json()
    assert len(direct["choices"]) == 1
    answer = site.client.post(CHAT, json=_chat(n=2))
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "n"


def test_models_are_those_of_the_gateway(site: Site) -> None:
    """Callers see their aliases, and Dynamo's own list has its context as the adapter says."""
    names = [model["id"] for model in site.client.get("/v1/models").json()["data"]]
    assert names == ["model-a"]
    (model,) = site.dynamo.get("/v1/models").json()["data"]
    assert (model["id"], model["context_window"]) == (MODEL, CONTEXT_TOKENS)


def test_its_metrics_say_how_many_wait(site: Site) -> None:
    """Once it was asked something; nothing of that is under way any more."""
    load = DYNAMO.load
    assert load is not None
    assert site.client.post(CHAT, json=_chat()).status_code == 200
    _until(
        lambda: read_metrics(load, site.dynamo.get(load.path).content) == Figures(0.0, 0.0, None),
        "Dynamo says that nothing runs and nothing waits",
    )


async def test_the_agent_knows_whether_its_models_can_be_asked(site: Site) -> None:
    """Dynamo is ready for its model, in whatever company, and not for one that it has not."""
    at = Endpoint("http", "127.0.0.1", site.dynamo.base_url.port or 0)
    upstreams = [Upstream(name, "dynamo", (at,)) for name in ("its", "both", "none")]
    models = [("its", MODEL), ("both", MODEL), ("both", "org/nope"), ("none", "org/nope")]
    catalog = ServedUpstreams(*upstreams)
    catalog.deployments = [Deployment("d", upstream, model) for upstream, model in models]
    asker = Health(catalog, SystemClock(), lambda _: None, random=random.random)
    task = asyncio.create_task(asker.run())
    wanted = {("its", at.url): True, ("both", at.url): True, ("none", at.url): False}
    deadline = time.monotonic() + 60  # a No counts once it was said twice
    while asker.states() != wanted:
        assert time.monotonic() < deadline, asker.states()
        await asyncio.sleep(0.1)
    task.cancel()
    assert asker.message().endpoints == (("none", at.url),)


@pytest.mark.parametrize("is_stream", [False, True])
def test_responses_are_relayed_and_counted(site: Site, *, is_stream: bool) -> None:
    """OpenAI's Responses are spoken by the frontend itself, and what it counts is booked."""
    before = len(site.worker.events())
    body = {"model": "model-a", "input": QUESTION, "max_output_tokens": 12, "stream": is_stream}
    answer = site.client.post("/v1/responses", json=body)
    assert answer.status_code == 200, answer.text
    whole = answer.json() if not is_stream else None
    if whole is None:
        assert answer.text.endswith("data: [DONE]\n\n")
        *_, name, last = [line for line in answer.text.splitlines() if line][:-1]
        assert name == "event: response.incomplete"
        whole = msgspec.json.decode(last.removeprefix("data: "))["response"]
    (event,) = site.worker.wait_events(before + 1)[before:]
    assert (event.outcome, event.usage_source) == ("ok", "engine")
    usage = whole["usage"]
    assert (event.input_tokens, event.output_tokens) == (
        usage["input_tokens"],
        usage["output_tokens"],
    )
    assert event.cached_input_tokens == usage["input_tokens_details"]["cached_tokens"]
    assert whole["store"] is False
