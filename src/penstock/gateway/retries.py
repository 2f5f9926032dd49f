"""How many of an upstream's requests may be sent to an engine a second time."""

from collections.abc import Callable

from penstock.gateway.limits import RETRIES_AT_LEAST, RETRY_SHARE, RETRY_WINDOW_S


class RetryBudget:
    """What one upstream's engines turn away may go to others, as long as it is a small part.

    Engines that have no room for most of what they get would get even more of it otherwise. Counts
    are of the window under way and of the one before, so a bound holds for `RETRY_WINDOW_S` to
    twice that.

    Args:
        now_s: Returns monotonic seconds.
    """

    __slots__ = ("_before", "_ends_at_s", "_now_s", "_retries", "requests")

    def __init__(self, now_s: Callable[[], float]) -> None:
        """See the class."""
        self._now_s = now_s
        self._ends_at_s = now_s() + RETRY_WINDOW_S
        self._before = (0, 0)
        """Requests and retries of the window before."""
        self._retries = 0
        self.requests = 0
        """First attempts of the window under way, for whoever makes them to count."""

    def sweep(self) -> None:
        """Begin another window when this one is over; called far more often than that."""
        now_s = self._now_s()
        if now_s < self._ends_at_s:
            return
        is_next = now_s < self._ends_at_s + RETRY_WINDOW_S
        self._before = (self.requests, self._retries) if is_next else (0, 0)
        self.requests = self._retries = 0
        self._ends_at_s = now_s + RETRY_WINDOW_S

    @property
    def is_left(self) -> bool:
        """Whether one more is within `RETRY_SHARE` of the requests, or within the few for all."""
        requests, retries = self._before
        allowed = max(RETRIES_AT_LEAST, RETRY_SHARE * (requests + self.requests))
        return retries + self._retries + 1 <= allowed

    def take(self) -> None:
        """Count a retry."""
        self._retries += 1
