"""Rows of FOCUS: as its specification says, and exactly what was charged."""

import csv
import io
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.fakes.focus_specification import find_column_faults, find_faults
from tests.fakes.rated_usage import ALL, RatedUsage
from tests.unit.metering.usage_events import make_event

from penstock.contract.usage import UsageEvent
from penstock.kit.decimals import format_decimal
from penstock.metering.bucket_rules import advance
from penstock.rating.exports.focus_rules import COLUMNS
from penstock.rating.exports.formats import CsvEncoder, write
from penstock.rating.exports.pages import list_focus_pages
from penstock.rating.model import Rated
from penstock.storage.database import Database
from penstock.storage.scope import Scope
from penstock.storage.sessions import ReadSession

FIRST = datetime(2026, 2, 1, tzinfo=UTC)
MONTH_US = int(FIRST.timestamp()) * 10**6
MARCH_US = advance("month", MONTH_US, 1)
KEPT = (HealthCheck.function_scoped_fixture,)

_numbers = iter(range(10**9))
_tokens = st.integers(0, 9) | st.integers(0, 2_000_000)
RATES: dict[str, Any] = {
    "steps": {
        "input": {
            "scheme": "graduated",
            "tiers": [{"up_to": 1_000_000, "price": "3"}, {"price": "0.1"}],
        },
        "output": {
            "scheme": "volume",
            "tiers": [{"up_to": 1_000_000, "price": "5"}, {"price": "1"}],
        },
        "requests": {"scheme": "flat", "price": "0.000000000001", "per": 1},
    },
    "all": {
        "requests": {"scheme": "flat", "price": "0.01", "per": 1},
        "input": {"scheme": "flat", "price": "0.123456789012"},
        "cached_input": {"scheme": "flat", "price": "0.000000000001"},
        "cache_write_input": {"scheme": "flat", "price": "2", "per": 1_000},
        "output": {"scheme": "flat", "price": "0"},
        "images": {"scheme": "package", "price": "1", "per": 3},
    },
}
MODELS = ("fast", "steps", "all", "unpriced")


@st.composite
def _events(draw: st.DrawFn) -> list[UsageEvent]:
    events = []
    for _ in range(draw(st.integers(1, 8))):
        start = FIRST + timedelta(hours=draw(st.integers(-30, 24 * 31)))
        event = make_event(
            next(_numbers),
            started_at_ns=int(start.timestamp()) * 10**9,
            organization=draw(st.sampled_from(["acme", "=cmd|' /C calc'!A0"])),
            project=draw(st.sampled_from(["search", ""])),
            model=draw(st.sampled_from(MODELS)),
            region=draw(st.sampled_from(["", "de"])),
            data_class=draw(st.sampled_from(["", "eu"])),
            input_tokens=draw(_tokens),
            output_tokens=draw(_tokens),
            cached_input_tokens=draw(st.none() | _tokens),
            cache_write_input_tokens=draw(st.none() | _tokens),
            reasoning_output_tokens=draw(st.none() | _tokens),
            image_count=draw(st.integers(0, 4)),
        )
        events.append(event)
    return events


async def _export(
    database: Database, since_us: int, until_us: int, scope: Scope = ALL
) -> list[dict[str, str | None]]:
    def read() -> AbstractAsyncContextManager[ReadSession]:
        return database.read(scope)

    pages = list_focus_pages(read, since_us, until_us, {}, "Example Cloud")
    content = await _join(write(CsvEncoder(COLUMNS), pages, 100))
    names, *rows = csv.reader(io.StringIO(content.decode(), newline=""))
    assert find_column_faults(names) == []
    return [{name: value or None for name, value in zip(names, row, strict=True)} for row in rows]


async def _join(pieces: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in pieces])


def _billed(rows: list[dict[str, str | None]]) -> int:
    # Decimals in texts: whole atto-units, so that nothing is rounded here either.
    return sum(int(Decimal(str(row["BilledCost"])).scaleb(18)) for row in rows)


def _charged(rated: list[Rated], organization: str | None = None) -> int:
    return sum(
        one.amount_atto
        for one in rated
        if one.kind == "charge"
        and MONTH_US <= one.event.started_at_ns // 1_000 < MARCH_US
        and organization in {None, one.event.organization}
    )


@pytest.fixture
async def usage(database: Database) -> RatedUsage:
    """Prices of three models, one of them by steps; the fourth has none."""
    usage = RatedUsage(database)
    await usage.set_price("fast", unit=7)
    for model, rates in RATES.items():
        await usage.set_price(model, rates=rates)
    await usage.set_price("served-fast", kind="cost", unit=1)
    return usage


@settings(max_examples=6, suppress_health_check=KEPT)
@given(events=_events())
async def test_rows_are_what_was_charged(usage: RatedUsage, events: list[UsageEvent]) -> None:
    """Each row is as FOCUS says, and those of a month add up to exactly what was charged for it."""
    # Of all examples so far: they are in one database.
    await usage.add(events)
    rows = await _export(usage.database, MONTH_US, MARCH_US)
    assert [fault for row in rows for fault in find_faults(row)] == []
    assert _billed(rows) == _charged(usage.rated)
    own = await _export(usage.database, MONTH_US, MARCH_US, Scope.of("acme"))
    assert _billed(own) == _charged(usage.rated, "acme")
    assert {row["BillingAccountId"] for row in own} <= {"acme"}


async def test_a_price_has_a_row_a_meter(usage: RatedUsage) -> None:
    """A row says how much of one meter was used, in its price's own unit."""
    start_ns = int(FIRST.timestamp()) * 10**9 + 5
    members = {"started_at_ns": start_ns, "model": "all", "region": "de"}
    await usage.add(
        [
            make_event(
                next(_numbers),
                input_tokens=1_500,
                cached_input_tokens=500,
                cache_write_input_tokens=10,
                output_tokens=3,
                **members,
            )
            for _ in range(2)
        ]
    )
    rows = await _export(usage.database, MONTH_US, MARCH_US)
    names = ("SkuMeter", "PricingQuantity", "PricingUnit", "ContractedUnitPrice", "BilledCost")
    assert [tuple(row[name] for name in names) for row in rows] == [
        ("Requests", "2", "Requests", "0.01", "0.02"),
        ("Input Tokens", "0.00198", "1000000 Tokens", "0.123456789012", "0.00024444444224376"),
        ("Cached Input Tokens", "0.001", "1000000 Tokens", "0.000000000001", "0.000000000000001"),
        ("Cache Write Input Tokens", "0.02", "1000 Tokens", "2", "0.04"),
        ("Output Tokens", "0.000006", "1000000 Tokens", "0", "0"),
    ]
    assert {row["ChargePeriodStart"] for row in rows} == {"2026-02-01T00:00:00Z"}
    assert [row["x_CachedTokens"] for row in rows] == [None, None, "1000", None, None]


async def test_changes_are_rows_of_their_own(usage: RatedUsage) -> None:
    """What a later rating changed is a row of its own, and in a later month a correction."""
    event = make_event(next(_numbers), started_at_ns=int(FIRST.timestamp()) * 10**9)
    await usage.add([event])
    change = Rated(event, "charge", "EUR", "prc_list_EUR_fast_0", -5, reverses="")
    await usage.change([change], "run_1", MARCH_US - 1)
    await usage.change([change], "run_2", MARCH_US)
    rows = await _export(usage.database, MONTH_US, MARCH_US)
    assert [fault for row in rows for fault in find_faults(row)] == []
    kinds = [(row["SkuMeter"], row["ChargeClass"], row["BilledCost"]) for row in rows]
    less = format_decimal(-5, 18)
    what = "Usage Rated Anew"
    assert kinds[2:] == [(what, None, less), (what, "Correction", less)]
    assert _billed(rows) == _charged(usage.rated)
