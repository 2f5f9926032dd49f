"""Rating says what an oracle in fractions says, in any order and parts (I13, I16 to I20)."""

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from tests.fakes.budget_rig import make_price
from tests.fakes.rate_forms import QUANTITY, all_rates, forms, usage
from tests.fakes.rating_oracle import cost_of, total_of

from penstock.contract.money import Price as ToldPrice
from penstock.contract.usage import METERS, UsageEvent, quantities
from penstock.limits.prices import ATTO, exact_charge, worst_charge
from penstock.metering.bucket_rules import bucket_start
from penstock.rating.price_rules import read_good
from penstock.rating.rates import Rate, read_rates, write_rates
from penstock.rating.rules import (
    MeterKey,
    ReadPrice,
    Running,
    current_price,
    meter_keys,
    rate_quantities,
)
from penstock.rating.telling import tell

EVENTS = st.lists(usage(), min_size=1, max_size=8)


def _read(rates: dict[str, Any], **members: Any) -> ReadPrice:
    (read,) = read_good([make_price("small", rates=rates, **members)])
    return read


def _rate(
    read: ReadPrice, event: UsageEvent, running: dict[MeterKey, Running], sign: int = 1
) -> int:
    used = {meter: sign * amount for meter, amount in quantities(event).items()}
    period_us = bucket_start("month", event.started_at_ns // 1_000)
    for key in meter_keys(read, used, event.organization, period_us):
        running.setdefault(key, Running())
    return rate_quantities(read, used, running, event.organization, period_us)


def _one(form: dict[str, Any]) -> Rate:
    return read_rates({"input": form})["input"]


@given(meter=st.sampled_from(METERS), form=forms(), quantity=QUANTITY)
def test_a_rate_costs_what_it_says(meter: str, form: dict[str, Any], quantity: int) -> None:
    """To the last of its decimals, whatever its scheme; and it is written as it was read."""
    (rate,) = read_rates({meter: form}).values()
    assert Fraction(rate.amount(quantity), ATTO) == cost_of(meter, form, quantity)
    written = write_rates(read_rates({meter: form}))
    assert read_rates(written) == read_rates({meter: form})


@given(rates=all_rates(), events=EVENTS, order=st.randoms(use_true_random=False))
def test_the_order_of_events_changes_no_total(
    rates: dict[str, Any], events: list[UsageEvent], order: Any
) -> None:
    """However they come, also late and into an earlier month, they cost what months cost."""
    read = _read(rates)
    expected = total_of((event, rates, "one") for event in events)
    for _ in range(2):
        order.shuffle(events)
        running: dict[MeterKey, Running] = {}
        total = sum(_rate(read, event, running) for event in events)
        assert Fraction(total, ATTO) == expected
        stepped = sum(month.amount_atto for month in running.values())
        again = sum(read.rates[key.meter].amount(month.quantity) for key, month in running.items())
        assert stepped == again


@given(rates=all_rates(), events=EVENTS, data=st.data())
def test_what_is_taken_back_never_was(
    rates: dict[str, Any], events: list[UsageEvent], data: st.DataObject
) -> None:
    """A voided event leaves the total of the others (I20)."""
    read = _read(rates)
    running: dict[MeterKey, Running] = {}
    total = sum(_rate(read, event, running) for event in events)
    void = data.draw(st.sampled_from(events))
    total += _rate(read, void, running, -1)
    events.remove(void)
    assert Fraction(total, ATTO) == total_of((event, rates, "one") for event in events)


@given(one=all_rates(), other=all_rates(), events=EVENTS)
def test_to_reprice_and_back_changes_nothing(
    one: dict[str, Any], other: dict[str, Any], events: list[UsageEvent]
) -> None:
    """Event by event, from one price to another, the total is the other's; and back (I19)."""
    prices = (_read(one), _read(other, id="prc_other"))
    running: dict[MeterKey, Running] = {}
    total = sum(_rate(prices[0], event, running) for event in events)
    for forms_, (before, after) in ((other, prices), (one, prices[::-1])):
        for event in events:
            total += _rate(before, event, running, -1) + _rate(after, event, running)
        assert Fraction(total, ATTO) == total_of((event, forms_, "one") for event in events)


@given(form=forms(), quantity=QUANTITY, more=QUANTITY)
def test_graduated_prices_rise_without_a_jump(
    form: dict[str, Any], quantity: int, more: int
) -> None:
    """More costs no less, and no more than its dearest step (I18); the others have that bound."""
    rate = _one(form)
    added = rate.amount(quantity + more) - rate.amount(quantity)
    one, once = rate.dearest()
    assert added <= more * one + (once if more else 0)
    if rate.scheme != "volume":
        assert added >= 0
    if rate.scheme == "graduated":
        assert added <= more * one


def _tell(*reads: ReadPrice) -> Sequence[ToldPrice]:
    return tell(reads)


@given(
    rates=st.lists(all_rates(has_unbounded=False), min_size=1, max_size=3),
    events=EVENTS,
    tiers=st.lists(st.sampled_from(["", "flex"]), min_size=8, max_size=8),
)
def test_workers_reckon_with_no_less_than_is_charged(
    rates: list[dict[str, Any]], events: list[UsageEvent], tiers: list[str]
) -> None:
    """Whatever was used before: held, and given back after it, by the dearest there is."""
    names = ("", "flex", "priority")
    reads = [
        _read(each, id=f"prc_{name}", service_tier=name)
        for name, each in zip(names, rates, strict=False)
    ]
    (told,) = _tell(*reads)
    running: dict[MeterKey, Running] = {}
    for event, tier in zip(events, tiers, strict=False):
        read = next((each for each in reads if each.price.service_tier == tier), reads[0])
        charged = _rate(read, event, running)
        cached = event.cached_input_tokens or 0
        most = exact_charge(told, event.input_tokens, cached, event.output_tokens)
        assert charged <= most
        assert most <= worst_charge(told, event.input_tokens, event.output_tokens) * 10**9


@given(
    starts=st.sets(st.integers(min_value=0, max_value=50), min_size=1, max_size=6),
    ends=st.lists(st.none() | st.integers(min_value=1, max_value=9), min_size=6, max_size=6),
    order=st.randoms(use_true_random=False),
    at_s=st.integers(min_value=0, max_value=70),
)
def test_one_price_holds_at_a_time(
    starts: set[int], ends: list[int | None], order: Any, at_s: int
) -> None:
    """At most one, and which one depends on what is there and on nothing else (I16)."""
    spans = []
    for (start, later), end in zip(pairwise([*sorted(starts), 1_000]), ends, strict=False):
        spans.append((start, None if end is None else min(start + end, later)))
    prices = [
        _read(
            {"input": {"price": "1"}, "output": {"price": str(start)}},
            id=f"prc_{start}",
            valid_from_us=start * 1_000_000,
            valid_to_us=None if end is None else end * 1_000_000,
        )
        for start, end in spans
    ]
    order.shuffle(prices)
    found = current_price(prices, at_s * 1_000_000)
    latest = max((span for span in spans if span[0] <= at_s), default=None)
    if latest is None or (latest[1] is not None and latest[1] <= at_s):
        assert found is None
    else:
        assert found is not None
        assert found.price.id == f"prc_{latest[0]}"
