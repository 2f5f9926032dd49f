"""Step 4, select: which endpoint of the upstream takes the request."""

from collections.abc import Sequence

from penstock.gateway.forward import Pool


def select(pools: Sequence[Pool], tried: Sequence[Pool], now_s: float) -> Pool | None:
    """Return the endpoint with the fewest requests of this worker in flight.

    Endpoints that refused a connection lately are passed over while there are others. The own
    count is exact and free; what engines report about themselves is stale by seconds.

    Args:
        pools: The upstream's endpoints, >= 1; earlier ones win ties.
        tried: Endpoints that this request tried in vain.
        now_s: The loop's time.

    Returns:
        None when every endpoint was tried.
    """
    if len(pools) == 1:
        return None if tried else pools[0]
    best = None
    for pool in pools:
        if pool in tried:
            continue
        if best is None:
            best = pool
            continue
        is_cooling, is_best_cooling = pool.cool_until_s > now_s, best.cool_until_s > now_s
        if (is_cooling, pool.in_flight) < (is_best_cooling, best.in_flight):
            best = pool
    return best
