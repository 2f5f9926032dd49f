"""Where one request is tried, by how its prompt begins and by what came of it."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from tests.fakes.worker_process import PEPPER, build_runtime, make_snapshot

from penstock.contract import metrics
from penstock.contract.caches import Found
from penstock.contract.snapshot import Endpoint
from penstock.gateway.adapters import Adapters
from penstock.gateway.admit import Admission, admit
from penstock.gateway.attempts import Attempts
from penstock.gateway.dialects.openai import COMPLETIONS
from penstock.gateway.endpoint import Endpoints
from penstock.gateway.errors import OVERLOADED
from penstock.gateway.forward import Pool
from penstock.gateway.limits import PREFIX_BOOKED_S, PREFIX_SLACK, PREFIX_TOLD_S
from penstock.gateway.prefixes import Prefixes
from penstock.gateway.retries import RetryBudget
from penstock.gateway.runtime import Principal
from penstock.gateway.select import Turns
from penstock.gateway.stats import Stats
from penstock.kit.errors import Refusal

ANYONE = Principal("key", "org-a", "project-a", None, None)
REFUSAL = Refusal(OVERLOADED)


class _Rig:
    """A worker's endpoints, and what it remembers."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.found: Found | None = None
        self.sent: list[str] = []
        self.stats = Stats()
        self.prefixes = Prefixes(1 << 20, lambda: self.now_s)
        self.adapters = Adapters(lambda: self.now_s, lambda _: True)
        self.endpoint_turn = Turns(0.0).next
        snapshot = make_snapshot([1, 2, 3])
        self._runtime = build_runtime(snapshot, PEPPER, heeds_prefixes=True)
        self.pools = self._make_pools(snapshot.upstreams[0].endpoints)

    def _make_pools(self, endpoints: tuple[Endpoint, ...]) -> Endpoints:
        upstream = self.admission("").target.upstream
        loop = asyncio.new_event_loop()
        retries = RetryBudget(loop.time)
        pools = Endpoints(Pool(endpoint, upstream, loop, retries) for endpoint in endpoints)
        loop.close()
        for position, pool in enumerate(pools):
            pool.position = position
        return pools

    def admission(self, text: str) -> Admission:
        """Return a request whose prompt begins so."""
        body = {"model": "model-a", "prompt": text + "s" * 2_000}
        found = admit(self._runtime, ANYONE, COMPLETIONS, msgspec.json.encode(body))
        assert isinstance(found, Admission)
        return found

    def answer(
        self, _target: Any, _body: bytes, sent: list[str], then: Callable[[Found], None]
    ) -> bool:
        """Answer as the process does that knows caches, if a test says what."""
        if self.found is None:
            return False
        self.sent = sent
        then(self.found)
        return True

    def tell(self, *tokens: int, heard: str = "") -> None:
        """Say how many tokens of each prompt endpoints have, and by their places who is heard."""
        urls = [pool.url for pool in self.pools]
        endpoints = [(url, number) for url, number in zip(urls, tokens, strict=True) if number]
        self.found = Found(1, tuple(endpoints), tuple(urls[int(at)] for at in heard))

    def place(self, text: str) -> int:
        """Return where a new request goes, which ends at once."""
        attempts, admission = self.attempts(), self.admission(text)
        told: list[str] = []
        assert attempts.ask(admission, lambda: told.append("told")) is bool(told)
        pool = attempts.place(admission)
        assert pool is not None
        return pool.position

    def attempts(self) -> Attempts:
        """Return those of a new request."""
        worker: Any = SimpleNamespace(
            pools_of=lambda _: self.pools,
            now_s=lambda: self.now_s,
            endpoint_turn=self.endpoint_turn,
            prefixes=self.prefixes,
            adapters=self.adapters,
            stats=self.stats,
            caches=SimpleNamespace(ask=self.answer),
        )
        return Attempts(worker, 0)

    def ask(self, admission: Admission) -> int:
        """Have a request answered; return where."""
        attempts = self.attempts()
        pool = attempts.place(admission)
        assert pool is not None
        attempts.answered()
        return pool.position

    def choices(self) -> dict[str, float]:
        """Return how often which choice was made."""
        return {
            sample.labels[1]: sample.value
            for report in self.stats.reports((), is_ready=True)
            for sample in report.samples
            if sample.name == metrics.PREFIX_CHOICES.name
        }


@pytest.fixture
def rig() -> _Rig:
    """Return a worker with three endpoints that were sent nothing."""
    return _Rig()


def test_a_prompt_goes_where_it_went(rig: _Rig) -> None:
    """As long as that one is not too busy; where it went then has it, too; all is counted."""
    admission = rig.admission("a")
    first = rig.ask(admission)
    assert [rig.ask(admission) for _ in range(3)] == [first] * 3
    rig.pools[first].in_flight = 50
    second = rig.ask(admission)
    assert second != first
    assert rig.ask(admission) == second
    assert rig.choices() == {"new": 1, "known": 4, "passed": 1}


def test_what_failed_is_tried_elsewhere_and_not_remembered(rig: _Rig) -> None:
    """An endpoint that had no room is not known for the prompt; the one that answered is."""
    admission = rig.admission("a")
    attempts = rig.attempts()
    failed = attempts.place(admission)
    assert failed is not None
    attempts.begun(failed)
    assert attempts.failed(failed, REFUSAL)
    answered = attempts.place(admission)
    assert answered is not None
    assert answered is not failed
    attempts.answered()
    rig.now_s = PREFIX_BOOKED_S + 1
    assert rig.ask(admission) == answered.position
    assert rig.prefixes.find(_prefix(admission), admission.target, rig.pools) == [answered]


def _prefix(admission: Admission) -> Any:
    assert admission.prefix is not None
    return admission.prefix


def test_an_answer_of_another_confirms_nothing(rig: _Rig) -> None:
    """What was given up stays forgotten when the request is answered without a choice."""
    admission = rig.admission("a")
    attempts = rig.attempts()
    failed = attempts.place(admission)
    assert failed is not None
    attempts.failed(failed, REFUSAL)
    attempts.answered()
    assert rig.prefixes.find(_prefix(admission), admission.target, rig.pools) == []


def test_adapters_go_where_they_are(rig: _Rig) -> None:
    """Of an adapter's prompts only endpoints that have it count, whatever others had before."""
    plain = rig.admission("a")
    target = msgspec.structs.replace(plain.target, is_adapter=True)
    admission = msgspec.structs.replace(plain, target=target)
    for pool in rig.pools:
        pool.adapters = frozenset({target.deployment.model})
    first = rig.ask(admission)
    assert rig.ask(admission) == first
    rig.pools[first].adapters = frozenset()
    second = rig.ask(admission)
    assert second != first
    assert rig.ask(admission) == second
    assert rig.adapters.report() is not None, "the agent is told that they are used"
    for pool in rig.pools:
        pool.adapters = frozenset()
    assert rig.attempts().place(admission) is None


def test_engines_that_tell_decide(rig: _Rig) -> None:
    """Who has most of a prompt gets it, though it was sent elsewhere; nobody else's word counts."""
    first = rig.place("a")
    rig.now_s = PREFIX_TOLD_S + 1
    other, third = (position for position in range(3) if position != first)
    tokens = [0, 0, 0]
    tokens[other], tokens[third] = 64, 32
    rig.tell(*tokens)
    assert rig.place("a") == other
    rig.found = Found(1, (("http://elsewhere:1", 1_000),))
    rig.now_s *= 2
    assert rig.place("b") == rig.place("b"), "nobody had it: all go where the first went"


def test_what_was_sent_just_now_is_not_told_of_yet(rig: _Rig) -> None:
    """The same prompt follows for two seconds, and then goes to whoever tells that he has it."""
    first = rig.place("a")
    other = (first + 1) % 3
    tokens = [0, 0, 0]
    tokens[other] = 16
    rig.tell(*tokens)
    assert rig.place("a") == first
    rig.now_s = PREFIX_TOLD_S + 1
    assert rig.place("a") == other


def test_what_a_heard_engine_does_not_tell_it_does_not_have(rig: _Rig) -> None:
    """It forgot the prompt, which is as new there; of others what was sent counts on."""
    rig.pools[0].in_flight = rig.pools[1].in_flight = 1
    assert rig.place("a") == 2
    rig.pools[2].in_flight = 3
    rig.now_s = PREFIX_TOLD_S + 1
    rig.tell(0, 0, 0)
    assert rig.place("a") == 2
    rig.now_s *= 2
    rig.tell(0, 0, 0, heard="2")
    assert rig.place("a") != 2
    assert rig.sent == [rig.pools[2].url], "it is asked about who had it alone"


def test_who_has_it_and_is_too_busy_is_passed(rig: _Rig) -> None:
    """The bound on load holds whatever engines tell."""
    rig.tell(0, 64, 0)
    assert rig.place("a") == 1
    rig.pools[1].in_flight = 2 * PREFIX_SLACK
    assert rig.place("b") != 1
