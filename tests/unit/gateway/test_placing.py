"""Where one request is tried, by how its prompt begins and by what came of it."""

import asyncio
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from tests.fakes.worker_process import PEPPER, build_runtime, make_snapshot

from penstock.contract import metrics
from penstock.contract.snapshot import Endpoint
from penstock.gateway.adapters import Adapters
from penstock.gateway.admit import Admission, admit
from penstock.gateway.attempts import Attempts
from penstock.gateway.dialects.openai import COMPLETIONS
from penstock.gateway.errors import OVERLOADED
from penstock.gateway.forward import Pool
from penstock.gateway.limits import PREFIX_BOOKED_S
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
        self.stats = Stats()
        self.prefixes = Prefixes(1 << 20, lambda: self.now_s)
        self.adapters = Adapters(lambda: self.now_s, lambda _: True)
        self.endpoint_turn = Turns(0.0).next
        snapshot = make_snapshot([1, 2, 3])
        self._runtime = build_runtime(snapshot, PEPPER, heeds_prefixes=True)
        self.pools = self._make_pools(snapshot.upstreams[0].endpoints)

    def _make_pools(self, endpoints: tuple[Endpoint, ...]) -> tuple[Pool, ...]:
        upstream = self.admission("").target.upstream
        loop = asyncio.new_event_loop()
        retries = RetryBudget(loop.time)
        pools = tuple(Pool(endpoint, upstream, loop, retries) for endpoint in endpoints)
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

    def attempts(self) -> Attempts:
        """Return those of a new request."""
        worker: Any = SimpleNamespace(
            pools_of=lambda _: self.pools,
            now_s=lambda: self.now_s,
            endpoint_turn=self.endpoint_turn,
            prefixes=self.prefixes,
            adapters=self.adapters,
            stats=self.stats,
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
