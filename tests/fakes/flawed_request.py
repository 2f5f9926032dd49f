"""One request of a worker without sockets and time, which meets bugs of ours where a test says."""

from types import SimpleNamespace
from typing import Any, cast

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
from penstock.gateway.dialects.operations import Telling
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
from penstock.kit.errors import Refusal


class Flaws:
    """Where there is a bug, once or more often: as one that a request's own data brings out."""

    def __init__(self, stage: str, count: int = 1) -> None:
        """See the class."""
        self.stage = stage
        self._left = count

    def meet(self, stage: str) -> None:
        """Fail where the bug is."""
        if stage == self.stage and self._left:
            self._left -= 1
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


class FlawedRequest(Request):
    """A request whose protocol has a bug where it tells of errors."""

    def __init__(self, flaws: Flaws, target: bytes) -> None:
        """See the class."""
        super().__init__()
        self._flaws = flaws
        self.target = target

    @property
    def telling(self) -> Telling:
        """How its protocol tells of errors."""
        self._flaws.meet("telling")
        return super().telling


class Flawed(Exchange):
    """A request under way that meets bugs."""

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

    def _redacted(self, refusal: Refusal) -> Refusal:
        self.flaws.meet("redact")
        return super()._redacted(refusal)


class Site:
    """A worker with a limit of one request at a time and a budget, and one request of it.

    Args:
        flaws: Where there are bugs; none when None.
        target: The request's path.
    """

    def __init__(
        self, flaws: Flaws | None = None, *, target: bytes = b"/v1/chat/completions"
    ) -> None:
        """Let the request in."""
        self.flaws = flaws or Flaws("")
        self.events: list[UsageEvent] = []
        self.ended: list[object] = []
        """Requests whose last bytes left."""
        self.shown = b""
        """What its caller sees."""
        self.is_kept = True
        """Its caller's connection goes on behind it."""
        self.rig = LimiterRig(budget=1_000 * TOKEN)
        self.rig.limit(Limit("c", Metric.CONCURRENCY, 1, window_s=0))
        self.rig.budget(Budget("budget", "EUR"))
        self.worker = cast("Any", StillWorker())
        self.worker.limiter = self.rig.limiter
        self.worker.tracer = SimpleNamespace(begin=lambda _: None)
        self.worker.journal = self
        self.worker.stats = FlawedStats(self.flaws)
        self.worker.keep_alive_s = 0.0
        self.is_paused = False
        self.exchange = self._make(target)
        self.exchange.flaws = self.flaws
        self.worker.stats.began("model-a")
        self.exchange._claim_or_open()
        self.rig.run()

    def _make(self, target: bytes) -> Flawed:
        admission = Admission(
            CHAT,
            cast("Offer", None),
            turn=0.0,
            target=self.rig.target,
            body=b"{}",
            is_stream=False,
            hides_usage=False,
            strips_usage=False,
            estimated_input_tokens=100,
            demand=Demand(400, 100, 1, 400, has_other_caps=False),
        )
        principal = Principal(
            "key-a", "org-a", "project-a", None, None, quota=read_quota(self.rig.records, A_KEY)
        )
        request = FlawedRequest(self.flaws, target)
        downstream: Any = self
        return Flawed(cast("Worker", self.worker), downstream, request, principal, admission)

    def send(self, pool_type: type[Pool] = Pool) -> tuple[UpstreamConnection, StillTransport]:
        """Send the request; return the connection that it is sent on."""
        loop: Any = SimpleNamespace(time=self.worker.now_s, call_later=lambda *_: None)
        endpoint = Endpoint("http", "engine", 8000)
        pool = pool_type(endpoint, self.rig.target.upstream, loop, RetryBudget(loop.time))
        transport = StillTransport()
        connection = UpstreamConnection(pool)
        connection.connection_made(transport)
        pool.release(connection)
        self.exchange._acquire(pool)
        return connection, transport

    def wait(self, seconds: float) -> None:
        """Let time go by, and deadlines be looked at."""
        self.worker.time_s += seconds
        self.exchange.sweep(self.worker.time_s)

    # What a caller's connection is asked

    def write(self, data: bytes) -> None:
        """Be the caller: see a piece of the answer."""
        self.shown += data

    def end_exchange(self, exchange: object, data: bytes, *, keep_alive: bool) -> None:
        """Be the caller: see its end."""
        self.ended.append(exchange)
        self.shown += data
        self.is_kept = keep_alive

    # What a journal is asked

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


def receive(connection: UpstreamConnection, data: bytes) -> None:
    """Let bytes of an engine be read."""
    connection.get_buffer(-1)[: len(data)] = data
    connection.buffer_updated(len(data))
