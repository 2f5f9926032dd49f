"""How busy engines say that they are, and what their endpoints get less for it (ADR 47)."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from penstock.contract.node import EngineLoads
from penstock.engines.load import REPORT_FORMAT, Figures, find_strain, read_report
from penstock.gateway.limits import (
    LOAD_ASKED_AGAIN_S,
    LOAD_ASKED_S,
    LOAD_BELIEVED_S,
    LOAD_MOST_OFF,
)

if TYPE_CHECKING:
    from penstock.gateway.endpoint import AnyEndpoint

WHOLE: Final = 100
"""Weights are counted in hundredths of those that are configured."""
_NEVER: Final = float("inf")
_ASKING: Final = f"{REPORT_FORMAT}: text\r\n".encode("ascii")
"""Both forms are understood; Triton wants it in small letters."""


class EngineLoad:
    """What one endpoint's engine said last.

    Args:
        reports: Whether it can be asked to say it in the heads of its answers.
    """

    __slots__ = ("_due_s", "_reported_s", "_running", "_strain", "_until_s", "is_wanted")

    def __init__(self, *, reports: bool) -> None:
        """See the class."""
        self.is_wanted = False
        """Whether the next request is to ask for a report."""
        self._due_s = 0.0 if reports else _NEVER
        self._reported_s = -_NEVER
        self._running = 0.0
        """Requests that ran when the agent looked: reports do not say."""
        self._strain = 0.0
        self._until_s = 0.0

    def told(
        self, figures: Figures | None, now_s: float, until_s: float, in_flight: int = 0
    ) -> None:
        """Take what the agent read; what a report said lately is newer.

        Args:
            figures: None when it read nothing.
            now_s: The loop's time.
            until_s: For how long it counts.
            in_flight: Requests of this worker that the engine has.
        """
        self._running = 0.0 if figures is None else figures.running or 0.0
        if now_s - self._reported_s < LOAD_BELIEVED_S / 2:
            return
        strain = None if figures is None else find_strain(figures, in_flight)
        self._strain = strain or 0.0
        self._until_s = 0.0 if strain is None else until_s

    def ask(self, now_s: float) -> bytes:
        """Return the header line by which a request asks for a report."""
        self.is_wanted = False
        self._due_s = now_s + LOAD_ASKED_AGAIN_S
        return _ASKING

    def reported(self, report: bytes, in_flight: int, now_s: float) -> None:
        """Take what an answer's head says, also unasked, but not more often than it is asked for.

        Args:
            report: As it was sent.
            in_flight: Requests of this worker that the engine has.
            now_s: The loop's time.
        """
        if now_s - self._reported_s < LOAD_ASKED_S:
            return
        figures = read_report(report)
        if figures is None:
            return
        figures = msgspec.structs.replace(figures, running=self._running)
        strain = find_strain(figures, in_flight)
        if strain is None:
            return
        self._strain, self._until_s = strain, now_s + LOAD_BELIEVED_S
        self._reported_s = now_s
        if self._due_s is not _NEVER:
            self._due_s = now_s + LOAD_ASKED_S

    def find_strain(self, now_s: float) -> float | None:
        """Return how strained it is; None when nobody said so lately."""
        return self._strain if self._until_s > now_s else None

    def look(self, now_s: float) -> None:
        """Have the next request ask, once it is time."""
        self.is_wanted = self._due_s <= now_s


class ToldLoads:
    """What the agent said last, also for endpoints that come later.

    Args:
        now_s: Returns the loop's time.
    """

    def __init__(self, now_s: Callable[[], float]) -> None:
        """See the class."""
        self._now_s = now_s
        self._until_s = 0.0
        self._figures: dict[tuple[str, str], Figures] = {}

    def take(self, message: EngineLoads) -> None:
        """Believe the agent from now on."""
        self._until_s = self._now_s() + message.believed_s
        self._figures = {(name, url): Figures(*rest) for name, url, *rest in message.endpoints}

    def tell(self, upstream: str, pool: "AnyEndpoint") -> None:
        """Tell an endpoint of an upstream what is known of it."""
        figures = self._figures.get((upstream, pool.endpoint.url))
        pool.load.told(figures, self._now_s(), self._until_s, pool.in_flight)


def weigh(pools: Sequence["AnyEndpoint"], now_s: float) -> None:
    """Give the endpoints of an upstream the weights that they have for now.

    One whose engine says nothing is taken to be as strained as the others are: silence is no sign
    of leisure. When none says anything, the configured weights count.

    Args:
        pools: All of the upstream's.
        now_s: The loop's time.
    """
    strains = [pool.load.find_strain(now_s) for pool in pools]
    known = [strain for strain in strains if strain is not None]
    usual = sum(known) / len(known) if known else 0.0
    for pool, strain in zip(pools, strains, strict=True):
        pool.load.look(now_s)
        off = round(LOAD_MOST_OFF * (usual if strain is None else strain))
        pool.weight = pool.endpoint.weight * (WHOLE - off)
