"""Prices as people write them, at random."""

from typing import Any

from hypothesis import strategies as st
from tests.unit.metering.usage_events import make_event

from penstock.contract.usage import METERS, UsageEvent

QUANTITY = st.integers(min_value=0, max_value=5_000_000) | st.integers(min_value=0, max_value=20)
PRICE = st.decimals(min_value=0, max_value=1, places=12).map(lambda price: f"{price:f}")
PER = st.sampled_from([1_000_000, 1_000, 1])
UNBOUNDED = frozenset({"images", "audio_seconds", "characters"})
"""Meters that workers know no worst case of."""
START_NS = 1_781_524_800_000_000_000
DAY_NS = 86_400 * 10**9


@st.composite
def tiers(draw: st.DrawFn, *, is_falling: bool) -> list[dict[str, Any]]:
    """Return steps, in order."""
    ends = sorted(draw(st.sets(st.integers(min_value=1, max_value=3_000_000), max_size=3)))
    prices = draw(st.lists(PRICE, min_size=len(ends) + 1, max_size=len(ends) + 1))
    if is_falling:
        prices.sort(key=lambda price: price.rjust(20, "0"), reverse=True)
    written: list[dict[str, Any]] = [{"price": price} for price in prices]
    for tier, end in zip(written, ends, strict=False):
        tier["up_to"] = end
    return written


@st.composite
def forms(draw: st.DrawFn) -> dict[str, Any]:
    """Return the rate of one meter."""
    scheme = draw(st.sampled_from(["flat", "graduated", "volume", "package"]))
    if scheme == "package":
        size = draw(st.integers(min_value=1, max_value=2_000_000))
        return {"scheme": scheme, "price": draw(PRICE), "per": size}
    form: dict[str, Any] = {"scheme": scheme, "per": draw(PER)}
    if scheme == "flat":
        return form | {"price": draw(PRICE)}
    return form | {"tiers": draw(tiers(is_falling=scheme == "volume"))}


def all_rates(*, has_unbounded: bool = True) -> st.SearchStrategy[dict[str, Any]]:
    """Return rates of a price: of input and output, and of any other meters."""
    others = [
        meter
        for meter in METERS
        if meter not in {"input", "output"} and (has_unbounded or meter not in UNBOUNDED)
    ]
    return st.fixed_dictionaries(
        {"input": forms(), "output": forms()}, optional={meter: forms() for meter in others}
    )


PART = st.none() | QUANTITY


@st.composite
def usage(draw: st.DrawFn, /, *, days: int = 40, **members: Any) -> UsageEvent:
    """Return an event with figures of all meters, of some day."""
    values = {
        "input_tokens": draw(QUANTITY),
        "output_tokens": draw(QUANTITY),
        "cached_input_tokens": draw(PART),
        "cache_write_input_tokens": draw(PART),
        "audio_input_tokens": draw(PART),
        "reasoning_output_tokens": draw(PART),
        "audio_output_tokens": draw(PART),
        "image_count": draw(st.integers(min_value=0, max_value=3)),
        "first_byte_at_ns": draw(st.none() | st.just(1)),
        "started_at_ns": START_NS + draw(st.integers(min_value=0, max_value=days)) * DAY_NS,
        **members,
    }
    return make_event(1, **values)
