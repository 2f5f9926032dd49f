"""LoRA adapters, seen by the callers of a real worker whose agent is played."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.fakes.fake_agent import FakeAgent, running_agent
from tests.fakes.http_rig import request
from tests.fakes.raw_http import Answer, RawConnection
from tests.fakes.recording_engine import RecordingEngine, running_engine
from tests.fakes.worker_process import KEY, PEPPER, WorkerProcess, running_worker

from penstock.access.rules import key_mac
from penstock.contract.node import (
    Applied,
    Apply,
    LoadedAdapters,
    UsedAdapters,
    WantAdapter,
    WorkerMessage,
)
from penstock.contract.snapshot import (
    Alias,
    Choice,
    Deployment,
    Endpoint,
    Key,
    Route,
    Snapshot,
    Upstream,
)

PATIENCE_S = 30.0
CALLERS = 6
ON_DEMAND = Deployment("legal", "gpu", "legal", adapter_of="base", adapter_path="/legal")
DEPLOYMENTS = (
    Deployment("base", "gpu", "base"),
    Deployment("house", "gpu", "house", adapter_of="base"),
    ON_DEMAND,
    Deployment("never", "gpu", "never", adapter_of="base", adapter_path="/never"),
    Deployment("cautious", "gpu", "cautious", adapter_of="base", adapter_path="/cautious"),
)


@dataclass
class Site:
    """A worker, two engines of one upstream, and who plays its agent."""

    worker: WorkerProcess
    agent: FakeAgent
    engines: tuple[RecordingEngine, RecordingEngine]

    def ask(self, model: str, *fields: bytes) -> Answer:
        """Send a request and return its answer."""
        with RawConnection(self.worker.port, timeout_s=PATIENCE_S) as connection:
            connection.send(_chat(model, *fields))
            return connection.read_answer()

    def tell(self, *adapters: Sequence[str], failing: Sequence[str] = ()) -> None:
        """Say which adapters each engine has, and which could not be loaded."""
        self.agent.send(_loaded(self.engines, adapters, failing))

    def counts(self) -> list[int]:
        """Return how many requests each engine got since the last time."""
        counts = [len(engine.seen) for engine in self.engines]
        for engine in self.engines:
            engine.seen.clear()
        return counts


def _chat(model: str, *fields: bytes) -> bytes:
    body = b'{"model":"%b","messages":[{"role":"user","content":"x"}]}' % model.encode()
    return request(body, *fields)


def _loaded(
    engines: Sequence[RecordingEngine], adapters: Sequence[Sequence[str]], failing: Sequence[str]
) -> LoadedAdapters:
    urls = (f"http://127.0.0.1:{engine.port}" for engine in engines)
    there = zip(urls, adapters, strict=False)
    return LoadedAdapters(
        tuple(("gpu", url, tuple(names)) for url, names in there),
        tuple(("gpu", name) for name in failing),
    )


@contextmanager
def _running_site(folder: Path, *adapters: Sequence[str]) -> Iterator[Site]:
    """Run it with an agent that says which adapters the engines have."""
    routes = [Route(each.name, (Choice(each.name),)) for each in DEPLOYMENTS[:-1]]
    routes.append(Route("cautious", (Choice("cautious"),), fallback="base"))
    with ExitStack() as stack:
        engines = (stack.enter_context(running_engine()), stack.enter_context(running_engine()))
        agent = stack.enter_context(running_agent())
        agent.greeting = [_loaded(engines, adapters, ()), Apply(1)]
        snapshot = Snapshot(
            version=1,
            created_at_ns=1_750_000_000_000_000_000,
            keys=(Key("k", key_mac(PEPPER, KEY.encode()), "org-a", "p"),),
            upstreams=(
                Upstream(
                    "gpu",
                    "vllm",
                    tuple(Endpoint("http", "127.0.0.1", engine.port) for engine in engines),
                    forward_headers=("x-emulator-*",),
                ),
            ),
            deployments=DEPLOYMENTS,
            routes=tuple(routes),
            aliases=tuple(Alias(each.name, each.name) for each in DEPLOYMENTS),
        )
        running = running_worker(folder, [], snapshot=snapshot, agent_socket=str(agent.path))
        worker = stack.enter_context(running)
        agent.wait(Applied)
        yield Site(worker, agent, engines)


def test_requests_go_where_the_adapter_is(tmp_path: Path) -> None:
    """Only the endpoint that has it gets its requests; the agent is told who used what."""
    with _running_site(tmp_path, ["legal"], ["house"]) as site:
        for model, counts in (("legal", [4, 0]), ("house", [0, 4])):
            assert [site.ask(model).status for _ in range(4)] == [200] * 4
            assert site.counts() == counts
        urls = [f"http://127.0.0.1:{engine.port}" for engine in site.engines]
        used: set[tuple[str, str, str]] = set()
        deadline = time.monotonic() + PATIENCE_S
        while len(used) < 2:
            assert time.monotonic() < deadline
            for message in site.agent.wait(UsedAdapters):
                used |= set(message.used)
        assert used == {("gpu", urls[0], "legal"), ("gpu", urls[1], "house")}
        site.counts()
        site.tell(["house"], ["legal"])
        deadline = time.monotonic() + PATIENCE_S
        while site.ask("legal").status == 200 and site.counts() != [0, 1]:
            assert time.monotonic() < deadline


def test_an_adapter_that_nobody_loads_is_not_found(tmp_path: Path) -> None:
    """Without a path it is 404 where no endpoint has it; where nobody looked, the engine says."""
    with _running_site(tmp_path, [], []) as site:
        answer = site.ask("house")
        assert (answer.status, answer.code) == (404, "request:model_not_found")
        assert site.counts() == [0, 0]
        site.tell([])  # of the second endpoint nothing is known
        deadline = time.monotonic() + PATIENCE_S
        while site.ask("house").status != 200:
            assert time.monotonic() < deadline
        assert site.counts() == [0, 1]


def test_what_nobody_knows_stays_unknown(tmp_path: Path) -> None:
    """That one endpoint lacks an adapter says nothing of others that it may have."""
    with _running_site(tmp_path, []) as site:
        assert site.ask("house", b"x-emulator-status: 404").status == 503
        assert site.ask("house").status == 200
        assert site.counts() == [0, 2]


def test_requests_wait_while_it_is_loaded(tmp_path: Path) -> None:
    """All wait for one load; who leaves meanwhile is not sent; who waits too long is told so."""
    with _running_site(tmp_path, [], []) as site, ThreadPoolExecutor(CALLERS + 1) as pool:
        began_s = time.monotonic()
        late = pool.submit(site.ask, "never")
        with RawConnection(site.worker.port) as gone:
            gone.send(_chat("legal"))
            assert site.agent.wait(WantAdapter, 2)
        (left,) = site.worker.wait_events(1, PATIENCE_S)
        assert (left.outcome, left.model, left.input_tokens) == ("caller_gone", "legal", 0)
        waiting = [pool.submit(site.ask, "legal") for _ in range(CALLERS)]
        time.sleep(0.2)
        assert site.counts() == [0, 0]
        site.tell([], ["legal"])
        assert [each.result(PATIENCE_S).status for each in waiting] == [200] * CALLERS
        assert site.counts() == [0, CALLERS]
        answer = late.result(PATIENCE_S)
        never = site.worker.wait_events(CALLERS + 2, PATIENCE_S)[-1]
        assert (never.outcome, never.attempt_count, never.output_tokens) == ("timeout", 0, 0)
        assert time.monotonic() - began_s >= 9.9
        assert (answer.status, answer.header["retry-after"]) == (503, "1")
        assert answer.code == "capacity:adapter_unavailable"
        wanted = {(each.upstream, each.adapter) for each in site.agent.wait(WantAdapter)}
        assert wanted == {("gpu", "legal"), ("gpu", "never")}


def test_what_cannot_be_loaded_is_said_at_once(tmp_path: Path) -> None:
    """A load that failed ends all waiting: with 503, or where the fallback is."""

    def fail(message: WorkerMessage) -> Sequence[LoadedAdapters]:
        if not isinstance(message, WantAdapter):
            return ()
        return (_loaded(site.engines, ([], []), ["legal", "cautious"]),)

    with _running_site(tmp_path, [], []) as site:
        site.agent._answer = fail  # it knows the engines only now
        assert site.ask("legal").code == "capacity:adapter_unavailable"
        assert site.counts() == [0, 0]
        assert site.ask("cautious").status == 200
        (seen,) = (each for engine in site.engines for each in engine.seen)
        assert b'"model":"base"' in seen.body


def test_without_an_agent_nothing_is_loaded(tmp_path: Path) -> None:
    """An adapter that is not there is 503 at once; one that is there is used on."""
    with _running_site(tmp_path, ["house"], []) as site:
        site.agent.stop()
        deadline = time.monotonic() + PATIENCE_S
        while site.ask("legal").status != 503:
            assert time.monotonic() < deadline
        assert site.ask("house").status == 200
        assert site.counts() == [1, 0]


@pytest.mark.parametrize("status", [b"404", b"400"])
def test_an_engine_that_let_go_of_it_is_not_asked_again(tmp_path: Path, status: bytes) -> None:
    """What has no adapter any more gets no more requests for it; another that has it is asked."""
    says_gone = b"x-emulator-status: " + status
    with _running_site(tmp_path, ["legal"], ["legal"]) as site:
        answer = site.ask("legal", says_gone)
        if status == b"400":  # and it says nothing of adapters
            assert (answer.status, sum(site.counts())) == (400, 1)
            return
        assert (answer.status, answer.header["retry-after"]) == (503, "1")
        assert site.counts() == [1, 1]
        pool = ThreadPoolExecutor(1)
        again = pool.submit(site.ask, "legal")
        site.agent.wait(WantAdapter)
        assert site.counts() == [0, 0]
        site.tell(["legal"], [])
        assert again.result(PATIENCE_S).status == 200
        pool.shutdown()
