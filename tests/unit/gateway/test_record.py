"""The end of requests that meet a bug of ours: nothing that they took is kept by it."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
from tests.fakes.limiter_rig import A_KEY, TOKEN, LimiterRig
from tests.fakes.still_worker import StillTransport, StillWorker

from penstock.contract.finished import Course
from penstock.contract.journal import Open
from penstock.contract.limits import Limit, Metric
from penstock.contract.money import Budget
from penstock.contract.snapshot import Endpoint
from penstock.contract.usage import Outcome, UsageEvent
from penstock.gateway.admit import Admission
from penstock.gateway.demand import Demand
from penstock.gateway.dialects.openai import CHAT
from penstock.gateway.exchange import Exchange
from penstock.gateway.forward import Pool, UpstreamConnection
from penstock.gateway.measure import Measure
from penstock.gateway.offer import Offer
from penstock.gateway.quota import read_quota
from penstock.gateway.request import Request
from penstock.gateway.retries import RetryBudget
from penstock.gateway.runtime import Principal
from penstock.gateway.stats import Stats
from penstock.gateway.worker import Worker

STAGES = ("count", "let_go", "measure", "event", "tell", "journal")


class Flaws:
    """Where there is a bug, once: as one that a request's own data brings out."""

    def __init__(self, stage: str) -> None:
        """See the class."""
        self.stage = stage

    def meet(self, stage: str) -> None:
        """Fail where the bug is."""
        if stage == self.stage:
            self.stage = ""
            message = f"a bug in {stage}"
            raise RuntimeError(message)


class FlawedStats(Stats):
    """Counters that meet bugs."""

    def __init__(self, flaws: Flaws) -> None:
        """See the class."""
        super().__init__()
        self._flaws = flaws

    def over(self, model: str) -> None:
        """Count a request out, or fail."""
        self._flaws.meet("count")
        super().over(model)

    def ended(self, *of_it: Any, **named: Any) -> None:
        """Count how it ended, or fail."""
        self._flaws.meet("tell")
        super().ended(*of_it, **named)


class Flawed(Exchange):
    """A request that meets bugs at its end."""

    flaws: Flaws

    def _let_go(self) -> None:
        self.flaws.meet("let_go")
        super()._let_go()

    def _measure(self, outcome: Outcome) -> Measure:
        self.flaws.meet("measure")
        return super()._measure(outcome)

    def _event(self, *of_it: Any) -> UsageEvent:
        self.flaws.meet("event")
        return super()._event(*of_it)


class Site:
    """A worker with a limit of one request at a time and a budget, and one request of it."""

    def __init__(self, stage: str) -> None:
        """Let the request in."""
        self.flaws = Flaws(stage)
        self.events: list[UsageEvent] = []
        self.ended: list[object] = []
        self.rig = LimiterRig(budget=1_000 * TOKEN)
        self.rig.limit(Limit("c", Metric.CONCURRENCY, 1, window_s=0))
        self.rig.budget(Budget("budget", "EUR"))
        self.worker = cast("Any", StillWorker())
        self.worker.limiter = self.rig.limiter
        self.worker.tracer = SimpleNamespace(begin=lambda _: None)
        self.worker.journal = self
        self.worker.stats = FlawedStats(self.flaws)
        self.exchange = self._make()
        self.exchange.flaws = self.flaws
        self.worker.stats.began("model-a")
        self.exchange._claim_or_open()
        self.rig.run()

    def _make(self) -> Flawed:
        demand = Demand(400, 100, 1, 400, has_other_caps=False)
        target = self.rig.target
        admission = Admission(
            CHAT,
            cast("Offer", None),
            turn=0.0,
            target=target,
            body=b"{}",
            is_stream=False,
            hides_usage=False,
            strips_usage=False,
            estimated_input_tokens=100,
            demand=demand,
        )
        principal = Principal(
            "key-a", "org-a", "project-a", None, None, quota=read_quota(self.rig.records, A_KEY)
        )
        downstream: Any = SimpleNamespace(
            is_paused=False, end_exchange=lambda *told, **_: self.ended.append(told[0])
        )
        return Flawed(cast("Worker", self.worker), downstream, Request(), principal, admission)

    def open(self, record: Open, request: Flawed) -> None:
        """Be the journal: the request is recorded and sent."""
        assert record.holds
        request._was_sent = True

    def close(self, event: UsageEvent, request: Flawed, course: Course) -> None:
        """Be the journal: keep the event, let the last bytes go."""
        del course
        self.flaws.meet("journal")
        self.events.append(event)
        request.closed()


@pytest.mark.parametrize("stage", STAGES)
def test_a_bug_at_its_end_keeps_nothing(stage: str, caplog: pytest.LogCaptureFixture) -> None:
    """Places and money come back, one event is recorded, the caller is let go, the log tells."""
    site = Site(stage)
    assert site.rig.one().denial is not None
    site.exchange.caller_gone()
    site.rig.wait(10)
    assert site.ended == [site.exchange]
    (event,) = site.events
    assert (event.outcome, event.error_code) == (
        "interrupted",
        "err:gateway:internal:interrupted",
    )
    assert sum(use.amount for use in event.holds) == event.input_tokens * TOKEN
    assert site.rig.agent.budgets["budget"] == 1_000 * TOKEN - event.holds[0].amount
    assert site.rig.one().is_in
    (line,) = (each for each in caplog.messages if "request failed" in each)
    assert caplog.text.count(f"RuntimeError: a bug in {stage}") == 1
    assert site.exchange.request_id in line


class FlawedPool(Pool):
    """An endpoint for which nothing can be written."""

    def head(self, path: str) -> bytes:
        """Fail."""
        raise RuntimeError(path)


def test_a_bug_as_it_is_sent_keeps_no_connection() -> None:
    """The connection that it had got is closed when the request ends, and counted nowhere."""
    site = Site("")
    loop: Any = SimpleNamespace(time=site.worker.now_s)
    pool = FlawedPool(
        Endpoint("http", "engine", 8000), site.rig.target.upstream, loop, RetryBudget(loop.time)
    )
    transport = StillTransport()
    connection = UpstreamConnection(pool)
    connection.connection_made(transport)
    pool.release(connection)
    with pytest.raises(RuntimeError):
        site.exchange._acquire(pool)
    assert (pool.in_flight, transport.is_closing()) == (1, False)
    site.exchange.caller_gone()
    assert (pool.in_flight, transport.is_closing()) == (0, True)
