"""Puts what is known of a request in the order in which it happened: pure."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

Facts = Mapping[str, Any]


class Step(NamedTuple):
    """Something that happened."""

    at: str
    """ISO 8601 in UTC, to the microsecond."""
    ms: float
    """Since the request was admitted."""
    what: str


def list_steps(request: Facts) -> list[Step]:
    """Return what happened to a request, first things first.

    Args:
        request: `usage`, as the API has it; `story`, the rest that it tells, or None; `node`, what
            is only in its node's journal, or None.
    """
    usage = request["usage"]
    begun = datetime.fromisoformat(usage["started_at"])
    steps = [*_went(usage, request["node"] or {}), *_booked(request["story"] or {})]
    return [
        Step(at, round((datetime.fromisoformat(at) - begun).total_seconds() * 1_000, 3), what)
        # Those of one moment stay as they are: what comes first is written first.
        for at, what in sorted(steps, key=lambda step: step[0])
    ]


def _went(usage: Facts, node: Facts) -> Iterator[tuple[str, str]]:
    if node.get("received_at"):
        yield node["received_at"], f"received whole, {node['request_bytes']} bytes"
    yield usage["started_at"], f"admitted: {usage['operation']} with {usage['model']}"
    if node.get("dispatched_at"):
        endpoints = ", ".join(node["endpoints"])
        yield node["dispatched_at"], f"dispatched, what limits ask for is taken: {endpoints}"
    for attempt in usage["earlier_attempts"]:
        words = f"given up at {attempt['upstream']}: {attempt['reason']}"
        yield attempt["finished_at"], words
    if usage["first_byte_at"]:
        yield usage["first_byte_at"], f"first byte from {usage['upstream']}"
    if node.get("refused_by"):
        by = node["refused_by"]
        again = "" if by["retry_after_s"] is None else f", again in {by['retry_after_s']} s"
        yield usage["finished_at"], f"refused by {by['rule']}, which limits {by['metric']}{again}"
    if usage["finished_at"]:
        yield usage["finished_at"], _end(usage)
    for hold in node.get("holds", ()):
        yield usage["finished_at"], f"{hold['amount_nano']} nano-units of hold {hold['id']}"


def _end(usage: Facts) -> str:
    error = f", {usage['error_code']}" if usage["error_code"] else ""
    tokens = f"{usage['input_tokens']} tokens in, {usage['output_tokens']} out"
    return f"ended {usage['outcome']}, status {usage['status']}{error}: {tokens}"


def _booked(story: Facts) -> Iterator[tuple[str, str]]:
    if not story:
        return
    arrival = story["arrival"]
    words = f"stored, from {arrival['producer']} epoch {arrival['epoch']}"
    yield arrival["recorded_at"], words
    books = {price["id"]: price["book_name"] for price in story["prices"]}
    for rating in story["ratings"]:
        price = rating["price_id"] or "no price"
        book = f" of {books[price]}" if price in books else ""
        run = f", run {rating['run_id']}" if rating["run_id"] else ""
        words = f"{rating['kind']} {rating['amount']} {rating['currency']} by {price}{book}{run}"
        yield rating["recorded_at"], words
    for use in story["budgets"]:
        words = f"{use['amount']} {use['currency']} off budget {use['budget_id']}"
        yield arrival["recorded_at"], words
    for booking in story["bookings"]:
        yield booking["recorded_at"], f"booked in {booking['id']}: {_entries(booking['entries'])}"
    for correction in story["corrections"]:
        changed = "void" if correction["is_void"] else str(correction["deltas"])
        yield correction["created_at"], f"corrected by {correction['id']}: {changed}"
    for bill in story["bills"]:
        if bill["issued_at"]:
            yield bill["issued_at"], f"on invoice {bill['label']} ({bill['invoice_id']})"


def _entries(entries: Iterable[Facts]) -> str:
    return ", ".join(f"{entry['account']} {entry['amount']}" for entry in entries)
