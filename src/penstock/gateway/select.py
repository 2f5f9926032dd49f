"""Step 4, select: which target takes the request, and which endpoint of its upstream."""

from collections.abc import Callable, Iterator, Sequence

from penstock.gateway.endpoint import AnyEndpoint
from penstock.gateway.limits import (
    ENDPOINTS_COMPARED,
    ENDPOINTS_SEEN,
    PREFIX_HOME_SLACK,
    PREFIX_LOAD,
    PREFIX_SLACK,
)
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
    pools: Sequence[AnyEndpoint],
    tried: Sequence[AnyEndpoint],
    now_s: float,
    turn: Callable[[], float] | None = None,
) -> AnyEndpoint | None:
    """Return the endpoint with the fewest requests of this worker in flight, by its weight.

    A long prompt that it has yet to read counts as several: what comes behind it waits (ADR 53).

    Endpoints that are known not to be ready, or that refused a connection lately, are passed over
    while there are others. When more than half of an upstream's are not ready, that is no reason
    any more: the others could not bear it, and whoever says so may be wrong. The own count is
    exact and free; what engines say of themselves is late, and only changes weights (ADR 47). Of
    very many endpoints some are compared, so that it costs the same for any number (ADR 49); all
    where half of these cannot be asked.

    Args:
        pools: The upstream's endpoints, >= 1; earlier ones win ties.
        tried: Endpoints that this request tried in vain, of this upstream or of others.
        now_s: The loop's time.
        turn: Returns a number in [0, 1), to take some of very many; else all are compared.

    Returns:
        None when every endpoint was tried.
    """
    if len(pools) == 1:
        return None if pools[0] in tried else pools[0]
    if turn is not None and len(pools) > ENDPOINTS_SEEN:
        some = _some(pools, tried, now_s, turn)
        if 2 * len(some) >= ENDPOINTS_COMPARED:
            return _least_busy(some, tried, now_s)
    for pool in pools:
        if pool.health.out_until_s > now_s:
            return _heed(pools, tried, now_s)
    return _least_busy(pools, tried, now_s)


def prefer(
    pools: Sequence[AnyEndpoint],
    tried: Sequence[AnyEndpoint],
    now_s: float,
    *,
    keepers: Sequence[AnyEndpoint],
    home: int,
    turn: Callable[[], float],
) -> AnyEndpoint | None:
    """Return the endpoint that is likely to have a prompt's beginning in its cache, if it has room.

    Of those that had it the least busy one, while it has not many more requests in flight than
    endpoints have on average. A beginning that nobody had goes where all workers would send it,
    if that one is hardly busier than others are: so they agree without a word (ADR 49).

    Args:
        pools: The endpoints that may be asked, >= 1.
        tried: As for `select`.
        now_s: The loop's time.
        keepers: Those of them that had the beginning.
        home: A number that stands for the beginning.
        turn: Returns a number in [0, 1), to take some of very many.

    Returns:
        None when `select` is to decide.
    """
    if len(pools) > ENDPOINTS_SEEN:
        others = _some(pools, tried, now_s, turn)
    else:
        others = [pool for pool in pools if _can_be_asked(pool, tried, now_s)]
    if not others:
        return None
    weight = sum(pool.weight for pool in others)
    if keepers:
        in_flight = sum(pool.in_flight for pool in others)
        kept = [pool for pool in keepers if _can_be_asked(pool, tried, now_s)]
        best = _least_busy(kept, tried, now_s)
        if best is None:
            return None
        more = best.in_flight + 1 - PREFIX_SLACK
        return best if more * weight <= PREFIX_LOAD * (in_flight + 1) * best.weight else None
    first = pools[home % len(pools)]
    busy = sum(pool.in_flight + pool.reading for pool in others)
    above = first.in_flight + first.reading - PREFIX_HOME_SLACK
    has_room = above * weight <= busy * first.weight
    return first if has_room and _can_be_asked(first, tried, now_s) else None


def _can_be_asked(pool: AnyEndpoint, tried: Sequence[AnyEndpoint], now_s: float) -> bool:
    return pool.cool_until_s <= now_s and pool.health.out_until_s <= now_s and pool not in tried


def _some(
    pools: Sequence[AnyEndpoint],
    tried: Sequence[AnyEndpoint],
    now_s: float,
    turn: Callable[[], float],
) -> list[AnyEndpoint]:
    """Return some of very many endpoints, those of them that can be asked."""
    count = len(pools)
    drawn = (pools[int(turn() * count)] for _ in range(ENDPOINTS_COMPARED))
    return [pool for pool in drawn if _can_be_asked(pool, tried, now_s)]


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
        elif (pool.in_flight + pool.reading + 1) * best.weight < (
            best.in_flight + best.reading + 1
        ) * pool.weight:
            best = pool
    return best
