"""Limits and budgets of a real worker, with an agent that leases and holds."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import msgspec
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam
from tests.fakes.emulator_process import running_emulator
from tests.fakes.fake_agent import FakeAgent, running_agent
from tests.fakes.http_rig import chat, request
from tests.fakes.limits_agent import LimitsAgent
from tests.fakes.raw_http import Answer, RawConnection, ask
from tests.fakes.recording_engine import RecordingEngine, running_engine
from tests.fakes.worker_process import KEY, OTHER_KEY, WorkerProcess, make_snapshot, running_worker

from penstock.contract.limits import Limit, Metric, OwnerLimits
from penstock.contract.money import NANO, PRICE_SCALE, Budget, Price
from penstock.contract.node import Hello, Returned, Stats
from penstock.contract.snapshot import Choice, Deployment, Endpoint, Route, Snapshot
from penstock.contract.snapshot_store import (
    budgets_record,
    limits_record,
    owner_name,
    prices_record,
)
from penstock.gateway.limits import ENDPOINT_COOL_DOWN_S
from penstock.node.stats import StatsBook

KEY_A = owner_name("key", "org-a", "key-a")
ORGANIZATION = owner_name("organization", "org-a")
TOKEN = NANO // 1_000_000
PRICE = Price("EUR", 0, PRICE_SCALE, PRICE_SCALE, PRICE_SCALE)
HELD = b"x-emulator-hold: 1"
BODY = chat("x" * 40, max_tokens=10)
WORST = len(BODY) + 256 + 10
"""Tokens that `BODY` may cost: its bytes, what a template adds, its output."""
COST = 8
"""Tokens that the engine says that it cost."""


@dataclass
class Stage:
    """A worker with limits, its agent and its engine."""

    worker: WorkerProcess
    engine: RecordingEngine
    agent: FakeAgent
    books: LimitsAgent

    def ask_once(self, body: bytes = BODY, *fields: bytes) -> Answer:
        """Send a chat."""
        return ask(self.worker.port, request(body, *fields))

    def ask(self, body: bytes = BODY, *fields: bytes) -> Answer:
        """Send a chat, and again as SDKs do: on a busy machine the agent may take too long."""
        while (answer := self.ask_once(body, *fields)).status == 503:
            assert answer.code == "limits:unavailable"
        return answer

    @contextmanager
    def holding(self) -> Iterator[RawConnection]:
        """Send a chat that the engine has and does not answer before `release`."""
        before, deadline_s = len(self.engine.seen), time.monotonic() + 60
        with RawConnection(self.worker.port) as connection:
            connection.send(request(BODY, HELD))
            while len(self.engine.seen) == before:
                assert time.monotonic() < deadline_s
                if not connection.is_silent(0.01):  # as in `ask`
                    assert connection.read_answer().code == "limits:unavailable"
                    connection.send(request(BODY, HELD))
            yield connection

    def ask_many(self, count: int) -> list[Answer]:
        """Send as many chats at once: none of them ends before all others are decided about."""
        with ThreadPoolExecutor(count) as pool:
            asking = [pool.submit(self.ask, BODY, HELD) for _ in range(count)]
            try:
                deadline_s = time.monotonic() + 60
                while len(self.engine.seen) + sum(each.done() for each in asking) < count:
                    assert time.monotonic() < deadline_s
                    time.sleep(0.01)
            finally:
                self.engine.release()
            return [each.result() for each in asking]


@contextmanager
def _stage(
    folder: Path,
    *limits: Limit,
    lowers_cap: bool = True,
    has_agent: bool = True,
    has_clock: bool = True,
    engine_port: int | None = None,
    snapshot: Snapshot | None = None,
    budget: int | None = None,
) -> Iterator[Stage]:
    books = LimitsAgent(
        lambda: time.monotonic_ns() // 1_000_000, base_ms=10**12, budgets={"b": budget or 0}
    )
    records = [limits_record(KEY_A, OwnerLimits(limits=limits))]
    if budget is not None:
        hard = Budget("b", "EUR", lowers_cap=lowers_cap)
        records += [budgets_record(ORGANIZATION, (hard,)), prices_record("model-a", (PRICE,))]
    greeting = (books.clock,) if has_clock else ()
    with (
        running_engine() as engine,
        running_agent(*greeting, answer=books.answer) as agent,
        running_worker(
            folder,
            [engine_port or engine.port],
            snapshot=snapshot,
            fed=dict(records),
            agent_socket=str(agent.path) if has_agent else "",
        ) as worker,
    ):
        if has_agent:
            agent.wait(Stats)
        yield Stage(worker, engine, agent, books)


def _let_in(answers: list[Answer]) -> int:
    """Return how many were let in; the others were refused."""
    statuses = [answer.status for answer in answers]
    assert set(statuses) == {200, 429}
    return statuses.count(200)


def _spent(stage: Stage) -> int:
    return sum(use.amount for event in stage.worker.events() for use in event.holds)


def _metric(stage: Stage, name: str) -> float:
    said = len([each for each in stage.agent.received if isinstance(each, Stats)])
    book = StatsBook()
    for report in stage.agent.wait(Stats, said + 1):
        book.report((0, 1), report)
    return sum(sum(each.values.values()) for each in book.families() if each.metric.name == name)


def test_a_key_without_limits_is_asked_about_nowhere(tmp_path: Path) -> None:
    """Another organization's key is served as ever, without a word to the agent."""
    with _stage(tmp_path, Limit("r1", Metric.REQUESTS, 1)) as stage:
        body = chat("x").replace(b"model-a", b"only-theirs")
        for _ in range(3):
            answer = ask(stage.worker.port, request(body, key=OTHER_KEY))
            assert answer.status == 200
            assert not any(name.startswith("x-ratelimit") for name in answer.header)
        assert not [each for each in stage.books.received if isinstance(each, Returned)]


def test_requests_are_let_in_up_to_the_limit(tmp_path: Path) -> None:
    """Of 20 at once 5 reach the engine; the others get a 429 that says when to come back."""
    with _stage(tmp_path, Limit("r1", Metric.REQUESTS, 5, window_s=3_600)) as stage:
        answers = stage.ask_many(20)
        assert _let_in(answers) == 5
        assert len(stage.engine.seen) == 5
        refused = next(answer for answer in answers if answer.status == 429)
        assert refused.error["code"] == "rate_limit_exceeded"
        assert refused.code == "limits:rate_exceeded"
        assert "r1" in refused.error["message"]
        assert refused.header["x-penstock-limit-exceeded"] == "r1"
        assert refused.header["x-ratelimit-remaining-requests"] == "0"
        wait_s = int(refused.header["retry-after-ms"]) / 1_000
        assert 0 < wait_s <= int(refused.header["retry-after"]) < wait_s + 1
        assert len(stage.worker.wait_events(5)) == 5
        assert _metric(stage, "penstock_limit_refused_total") == 15
    with _stage(tmp_path / "2", Limit("r1", Metric.REQUESTS, 5, window_s=2)) as stage:
        while (answer := stage.ask()).status == 200:
            pass
        time.sleep(int(answer.header["retry-after-ms"]) / 1_000)
        assert stage.ask().status == 200


def test_answers_tell_what_is_left(tmp_path: Path) -> None:
    """Of each kind of limit that there is, and of no other."""
    limits = (
        Limit("r1", Metric.REQUESTS, 100),
        Limit("i1", Metric.INPUT_TOKENS, 10_000),
        Limit("c1", Metric.CONCURRENCY, 10, window_s=0),
    )
    with _stage(tmp_path, *limits) as stage:
        for body in (BODY, chat("x", stream=True)):
            header = stage.ask(body).header
            told = {name: header[name] for name in header if name.startswith("x-ratelimit")}
            assert set(told) == {
                f"x-ratelimit-{what}-{kind}"
                for what in ("limit", "remaining", "reset")
                for kind in ("requests", "input-tokens")
            }
            assert told["x-ratelimit-limit-requests"] == "100"
            assert 0 < int(told["x-ratelimit-remaining-requests"]) < 100
            assert told["x-ratelimit-reset-requests"] == "61s"


def test_no_more_are_in_flight_than_the_limit(tmp_path: Path) -> None:
    """A place is free as soon as its request ended."""
    with _stage(tmp_path, Limit("c1", Metric.CONCURRENCY, 2, window_s=0)) as stage:
        assert _let_in(stage.ask_many(6)) == 2
        for _ in range(5):
            assert stage.ask().status == 200


def test_a_place_is_free_when_a_caller_leaves(tmp_path: Path) -> None:
    """Also one whose request had not been answered, and one that could not be connected."""
    with _stage(tmp_path, Limit("c1", Metric.CONCURRENCY, 1, window_s=0)) as stage:
        with stage.holding():
            pass
        stage.worker.wait_events(1)
        assert stage.ask().status == 200
    one = Limit("c1", Metric.CONCURRENCY, 1, window_s=0)
    with _stage(tmp_path / "2", one, engine_port=1) as stage:
        assert [stage.ask_once().status for _ in range(3)] == [503, 503, 503]


def test_refused_requests_wait_for_their_turn_in_the_pipeline(tmp_path: Path) -> None:
    """Answers keep the order of the requests, whoever is refused."""
    with _stage(tmp_path, Limit("r1", Metric.REQUESTS, 2)) as stage:
        names = [f"turn-{number}" for number in range(5)]
        with RawConnection(stage.worker.port) as connection:
            content = (request(BODY, b"x-request-id: " + name.encode()) for name in names)
            connection.send(b"".join(content))
            answers = [connection.read_answer() for _ in names]
        assert [answer.header["x-request-id"] for answer in answers] == names
        # On a busy machine the agent may take too long for some; then others come before them.
        statuses = [answer.status for answer in answers if answer.status != 503]
        assert statuses == [200, 200, 429, 429, 429] or len(statuses) < 5
        assert statuses == sorted(statuses)
        assert statuses.count(200) <= 2


def test_a_silent_agent_costs_50_ms(tmp_path: Path) -> None:
    """Then hard limits are unavailable, which is no fault of the caller."""
    with _stage(tmp_path, Limit("r1", Metric.REQUESTS, 5), has_clock=False) as stage:
        took_s = []
        for _ in range(3):
            begun_s = time.monotonic()
            answer = stage.ask_once()
            took_s.append(time.monotonic() - begun_s)
            assert (answer.status, answer.code) == (503, "limits:unavailable")
            assert answer.header["retry-after"] == "1"
        assert 0.04 < min(took_s) < 2.0
        assert stage.engine.seen == []
        assert stage.worker.records() == []


def test_a_worker_without_an_agent_refuses_what_is_limited(tmp_path: Path) -> None:
    """At once: there is nobody to ask."""
    with _stage(tmp_path, Limit("r1", Metric.REQUESTS, 5), has_agent=False) as stage:
        answer = stage.ask_once()
        assert (answer.status, answer.code) == (503, "limits:unavailable")


def test_limits_that_cannot_be_read_let_nothing_through(tmp_path: Path) -> None:
    """A damaged record is no leave to use anything, and no fault of the key."""
    with (
        running_engine() as engine,
        running_worker(tmp_path, [engine.port], fed={b"l" + KEY_A: b"\xc1"}) as worker,
    ):
        answer = ask(worker.port, request(BODY))
        assert (answer.status, answer.code) == (503, "limits:unavailable")


def test_an_agent_that_comes_back_goes_on(tmp_path: Path) -> None:
    """Requests in flight keep their places, and no place is lost."""
    with _stage(tmp_path, Limit("c1", Metric.CONCURRENCY, 1, window_s=0)) as stage:
        with stage.holding() as busy:
            stage.agent.hang_up()
            stage.agent.wait(Hello, 2)
            assert stage.ask().status == 429
            stage.engine.release()
            assert busy.read_answer().status == 200
        assert stage.ask().status == 200


def test_another_model_is_another_limit(tmp_path: Path) -> None:
    """What is tried when connecting failed takes what its own model's limits give, or nothing."""
    limits = (Limit("r-all", Metric.REQUESTS, 3), Limit("r-b", Metric.REQUESTS, 1, model="b"))
    with running_engine() as engine:
        plain = make_snapshot([engine.port])
        dead = msgspec.structs.replace(
            plain.upstreams[0], name="dead", endpoints=(Endpoint("http", "127.0.0.1", 1),)
        )
        snapshot = msgspec.structs.replace(
            plain,
            upstreams=(*plain.upstreams, dead),
            deployments=(Deployment("dead", "dead", "a"), Deployment("main", "engine", "b")),
            routes=(Route("main", (Choice("dead", 1), Choice("main", 0))),),
        )
        with _stage(tmp_path, *limits, snapshot=snapshot) as stage:
            assert stage.ask().status == 200
            time.sleep(ENDPOINT_COOL_DOWN_S)
            refused = stage.ask()
            assert (refused.status, refused.header["x-penstock-limit-exceeded"]) == (429, "r-b")
            events = [event for event in stage.worker.events() if event.status != 503]
            sent, unsent = events
            assert (sent.outcome, sent.served_model, sent.attempt_count) == ("ok", "b", 2)
            assert (unsent.outcome, unsent.status, unsent.input_tokens) == ("refused", 429, 0)
            assert len(engine.seen) == 1


def test_what_was_turned_away_is_paid_for_once(tmp_path: Path) -> None:
    """A retry at another model goes on with what was held and taken, even with the last of it."""
    three, budget = Limit("r3", Metric.REQUESTS, 3), 2 * WORST * TOKEN
    one = Limit("c1", Metric.CONCURRENCY, 1, window_s=0)
    options = ("--kind", "dynamo", "--fault", "status")
    with running_engine() as engine, running_emulator("a", options=options) as busy:
        plain = make_snapshot([engine.port])
        endpoint = Endpoint("http", "127.0.0.1", int(busy.rpartition(":")[2]))
        full = msgspec.structs.replace(
            plain.upstreams[0], name="full", provider="dynamo", endpoints=(endpoint,)
        )
        snapshot = msgspec.structs.replace(
            plain,
            upstreams=(*plain.upstreams, full),
            deployments=(Deployment("full", "full", "a"), *plain.deployments),
            routes=(Route("main", (Choice("full", 1), Choice("main", 0))),),
        )
        with _stage(
            tmp_path, three, one, snapshot=snapshot, budget=budget, lowers_cap=False
        ) as stage:
            for _ in range(3):
                assert stage.ask().status == 200
            assert stage.ask().header["x-penstock-limit-exceeded"] == "r3"
            events = stage.worker.wait_events(3)
            assert [event.outcome for event in events] == ["ok"] * 3
            assert {(event.upstream, event.attempt_count) for event in events} <= {
                ("engine", 2),
                ("engine", 1),  # the first asked for rest
            }
            first = events[0].earlier_attempts[0]
            assert (first.upstream, first.reason) == ("full", "overloaded")
            assert _spent(stage) == 3 * COST * TOKEN
            assert len({opened.event_id for opened in stage.worker.opens()}) == 3


def test_a_budget_is_never_overspent(tmp_path: Path) -> None:
    """Of 40 at once no more are sent than it pays for; each event says what it cost."""
    with _stage(tmp_path, budget=10 * WORST * TOKEN, lowers_cap=False) as stage:
        answers = stage.ask_many(40)
        sent = _let_in(answers)
        assert sent == len(stage.engine.seen) == 10
        refused = next(answer for answer in answers if answer.status == 429)
        assert refused.error["code"] == "insufficient_quota"
        assert refused.header["x-should-retry"] == "false"
        stage.worker.wait_events(sent)
        assert _spent(stage) == sent * COST * TOKEN
        opened = [sum(use.amount for use in each.holds) for each in stage.worker.opens()]
        assert opened == [WORST * TOKEN] * sent
        deadline_s = time.monotonic() + 20
        while stage.ask().status != 200:  # what they did not cost is free in a moment
            assert time.monotonic() < deadline_s


def test_a_cap_is_written_into_what_is_sent(tmp_path: Path) -> None:
    """A request that names no cap gets one; one that asks for more than is left gets fewer."""
    with _stage(tmp_path, budget=100_000 * TOKEN) as stage:
        answer = stage.ask(chat("x"))
        assert answer.header["x-penstock-max-tokens"] == "4096"
        assert msgspec.json.decode(stage.engine.seen[-1].body)["max_tokens"] == 4_096
        named = stage.ask(chat("x", max_completion_tokens=7))
        assert "x-penstock-max-tokens" not in named.header
        assert b"max_tokens" not in stage.engine.seen[-1].body
        for evading in ({"n_predict": 9_999}, {"max_tokens": 5, "n_predict": 9_999}):
            stage.ask(chat("x", **evading))
            assert b"n_predict" not in stage.engine.seen[-1].body
    with _stage(tmp_path / "2", budget=1_000 * TOKEN) as stage:
        body = chat("x", max_tokens=5_000)
        answer = stage.ask(body)
        left = 1_000 - len(body) - 256
        assert answer.header["x-penstock-max-tokens"] == str(left)
        assert msgspec.json.decode(stage.engine.seen[-1].body)["max_tokens"] == left


@pytest.mark.parametrize(
    ("path", "member", "question"),
    [
        (b"/v1/messages", "max_tokens", {"messages": [{"role": "user", "content": "x" * 9}]}),
        (b"/v1/responses", "max_output_tokens", {"input": "x" * 9}),
    ],
    ids=["messages", "responses"],
)
@pytest.mark.parametrize("is_stream", [False, True])
def test_other_protocols_are_held_and_paid_for_like_chats(
    tmp_path: Path, path: bytes, member: str, question: dict[str, object], *, is_stream: bool
) -> None:
    """What is left bounds the output in the protocol's own member, and usage settles the hold."""
    asked = {"model": "model-a", member: 5_000, "stream": is_stream} | question
    body = msgspec.json.encode(asked)
    options = ["--record", "--input-tokens", "3", "--output-tokens", "5"]
    with running_emulator("served-model", options=options) as url:
        port = int(url.rpartition(":")[2])
        with _stage(tmp_path, budget=1_000 * TOKEN, engine_port=port) as stage:
            while (answer := ask(stage.worker.port, request(body, path=path))).status == 503:
                assert answer.code == "limits:unavailable"
            assert answer.status == 200
            left = 1_000 - len(body) - 256
            assert answer.header["x-penstock-max-tokens"] == str(left)
            stage.worker.wait_events(1)
            assert _spent(stage) == COST * TOKEN
            (opened,) = stage.worker.opens()
            assert sum(use.amount for use in opened.holds) == 1_000 * TOKEN
        (seen,) = httpx.get(f"{url}/emulator/stats").json()["recorded"]
        assert msgspec.json.decode(seen["body"])[member] == left


def test_the_official_sdk_does_as_it_is_told(tmp_path: Path) -> None:
    """It comes back when a rate limit says so, and does not when money is spent."""
    hello: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hello"}]
    one_a_second = Limit("r1", Metric.REQUESTS, 1, window_s=1)
    with (
        _stage(tmp_path / "rate", one_a_second) as stage,
        openai.OpenAI(base_url=f"{stage.worker.url}/v1", api_key=KEY, max_retries=3) as client,
    ):
        made = 0
        while made < 2 or _metric(stage, "penstock_limit_refused_total") < 1:
            assert made < 20
            client.chat.completions.create(model="model-a", messages=hello, max_tokens=5)
            made += 1
        assert len(stage.engine.seen) == made
    with (
        _stage(tmp_path / "money", budget=10 * TOKEN) as stage,
        openai.OpenAI(base_url=f"{stage.worker.url}/v1", api_key=KEY, max_retries=3) as client,
    ):
        with pytest.raises(openai.RateLimitError) as refused:
            client.chat.completions.create(model="model-a", messages=hello, max_tokens=5)
        assert refused.value.code == "insufficient_quota"
        assert _metric(stage, "penstock_limit_refused_total") == 1


def test_money_without_a_database(tmp_path: Path) -> None:
    """What is held is spent; then it is 503, and nothing is sent."""
    with _stage(tmp_path, budget=10**15) as stage:
        assert stage.ask().status == 200
        stage.books.is_away = True
        statuses = [stage.ask_once().status]
        while statuses[-1] == 200:
            statuses.append(stage.ask_once().status)
        assert statuses[-1] == 503
        stage.worker.wait_events(len(statuses))
        assert _spent(stage) == len(statuses) * COST * TOKEN <= sum(stage.books.holds.values())


def test_frequent_requests_draw_from_tills(tmp_path: Path) -> None:
    """Each holds its worst case or somewhat more, costs what it cost, and nothing stays behind."""
    limits = Limit("r", Metric.REQUESTS, 10**9), Limit("c", Metric.CONCURRENCY, 10**6, window_s=0)
    with _stage(tmp_path, *limits, budget=10**15) as stage:
        stage.ask()
        sent, held = 1, [WORST * TOKEN]
        deadline_s = time.monotonic() + 60
        while max(held) == WORST * TOKEN:  # until enough of them come within 10 ms
            assert time.monotonic() < deadline_s
            with ThreadPoolExecutor(8) as pool:
                answers = list(pool.map(lambda _: _ask_in_a_row(stage, 16), range(8)))
            assert {answer.status for row in answers for answer in row} <= {200, 503}
            sent += sum(answer.status == 200 for row in answers for answer in row)
            stage.worker.wait_events(sent, timeout_s=30)
            held = [sum(use.amount for use in each.holds) for each in stage.worker.opens()]
        assert min(held) == WORST * TOKEN
        assert max(held) < 4 * WORST * TOKEN
        assert len(held) == sent
        assert _spent(stage) == sent * COST * TOKEN
        while stage.books.budgets["b"] + _spent(stage) != 10**15:
            assert time.monotonic() < deadline_s
            time.sleep(0.1)
        assert stage.books.authority.permits_of("worker") == {}


def _ask_in_a_row(stage: Stage, count: int) -> list[Answer]:
    """Send chats on one connection, each before the last is answered."""
    with RawConnection(stage.worker.port) as connection:
        connection.send(request(BODY) * count)
        return [connection.read_answer() for _ in range(count)]
