"""Step 4, select: which target takes the request, and which endpoint of its upstream."""

from collections.abc import Callable, Iterator, Sequence

from penstock.gateway.endpoint import AnyEndpoint
from penstock.gateway.offer import ServedUpstream, Target

_GOLDEN_RATIO = 0.6180339887498949


class Turns:
    """Numbers in [0, 1) that fill it evenly, however few or many were drawn.

    One sequence serves all routes of a worker, so shares hold across projects and versions of the
    snapshot; workers begin at different places.

    Args:
        start: Where to begin, in [0, 1).

    Source: additive recurrence with the golden ratio; Knuth, The Art of Computer Programming,
    volume 3, 6.4, theorem S.
    """

    def __init__(self, start: float) -> None:
        """See the class."""
        self._last = start

    def next(self) -> float:
        """Return the next number."""
        self._last = (self._last + _GOLDEN_RATIO) % 1.0
        return self._last


def rank(tiers: Sequence[Sequence[Target]], turn: float) -> Iterator[Target]:
    """Yield all targets in the order in which they are to be tried.

    Within a tier the weights decide: of those left each is next as often as its weight among
    theirs says, so that the share of one that is away falls to the others by weight, too. What a
    draw leaves undecided decides the next one: one number is enough for all.

    Args:
        tiers: Each stands in for those before it; targets of weight 0 come last in theirs.
        turn: In [0, 1).
    """
    for tier in tiers:
        left = [target for target in tier if target.weight > 0]
        while left:
            point = turn * sum(target.weight for target in left)
            for chosen in left:
                if point < chosen.weight:
                    break
                point -= chosen.weight
            turn = point / chosen.weight
            left.remove(chosen)
            yield chosen
        yield from (target for target in tier if target.weight <= 0)


def cooling_last(
    targets: Iterator[Target],
    pools_of: Callable[[ServedUpstream], Sequence[AnyEndpoint]],
    now_s: Callable[[], float],
) -> Iterator[Target]:
    """Pass over targets all of whose endpoints are cooling or out, while there are others.

    Args:
        targets: In their order.
        pools_of: Returns the endpoints of an upstream.
        now_s: Returns the loop's time.
    """
    cooling = []
    for target in targets:
        now = now_s()
        if any(
            pool.cool_until_s <= now and pool.health.out_until_s <= now
            for pool in pools_of(target.upstream)
        ):
            yield target
        else:
            cooling.append(target)
    yield from cooling


def select(
    pools: Sequence[AnyEndpoint], tried: Sequence[AnyEndpoint], now_s: float
) -> AnyEndpoint | None:
    """Return the endpoint with the fewest requests of this worker in flight, by its weight.

    Endpoints that are known not to be ready, or that refused a connection lately, are passed over
    while there are others. When more than half of an upstream's are not ready, that is no reason
    any more: the others could not bear it, and whoever says so may be wrong. The own count is
    exact and free; what engines say of themselves is late, and only changes weights (ADR 47).

    Args:
        pools: The upstream's endpoints, >= 1; earlier ones win ties.
        tried: Endpoints that this request tried in vain, of this upstream or of others.
        now_s: The loop's time.

    Returns:
        None when every endpoint was tried.
    """
    if len(pools) == 1:
        return None if pools[0] in tried else pools[0]
    for pool in pools:
        if pool.health.out_until_s > now_s:
            return _heed(pools, tried, now_s)
    return _least_busy(pools, tried, now_s)


def _heed(
    pools: Sequence[AnyEndpoint], tried: Sequence[AnyEndpoint], now_s: float
) -> AnyEndpoint | None:
    """Take one that is out only when there is no other, unless too many are."""
    out = [pool for pool in pools if pool.health.out_until_s > now_s]
    if len(out) > len(pools) / 2:
        return _least_busy(pools, tried, now_s)
    ready = [pool for pool in pools if pool not in out]
    return _least_busy(ready, tried, now_s) or _least_busy(out, tried, now_s)


def _least_busy(
    pools: Sequence[AnyEndpoint], tried: Sequence[AnyEndpoint], now_s: float
) -> AnyEndpoint | None:
    best = None
    for pool in pools:
        if pool in tried:
            continue
        if best is None:
            best = pool
            continue
        is_cooling, is_best_cooling = pool.cool_until_s > now_s, best.cool_until_s > now_s
        if is_cooling is not is_best_cooling:
            if is_best_cooling:
                best = pool
        elif (pool.in_flight + 1) * best.weight < (best.in_flight + 1) * pool.weight:
            best = pool
    return best
