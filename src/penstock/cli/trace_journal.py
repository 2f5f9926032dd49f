"""Puts what a journal says of a request in the words that the API has for it."""

from typing import Any

from penstock.contract.finished import Course, finished_request
from penstock.contract.journal import interrupted_event
from penstock.contract.usage import UsageEvent
from penstock.kit.moments import format_time
from penstock.node.trail import Trail

_TIMES = ("started_at_ns", "first_byte_at_ns", "finished_at_ns")


def usage_of(trail: Trail) -> dict[str, Any]:
    """Return the usage that is to arrive; of a request without an end, what is known by now."""
    event = _event_of(trail)
    members = {name: getattr(event, name) for name in event.__struct_fields__}
    for name in _TIMES:
        members[name.removesuffix("_ns")] = _time(members.pop(name))
    members["earlier_attempts"] = [
        {
            "upstream": one.upstream,
            "reason": one.reason,
            "started_at": _time(one.started_at_ns),
            "finished_at": _time(one.finished_at_ns),
        }
        for one in event.earlier_attempts
    ]
    members["labels"] = dict(event.labels)
    members["flags"] = list(event.flags)
    if trail.closed is None:
        members |= {"outcome": None, "status": 0, "error_code": None, "finished_at": None}
    del members["holds"], members["key_secret_id"]
    return members


def node_of(trail: Trail) -> dict[str, Any]:
    """Return what only the journal says of a request."""
    event, course = _event_of(trail), _course_of(trail)
    told = finished_request(event, course, 0)
    return {
        "journal": trail.journal,
        "is_closed": trail.closed is not None,
        "trace_id": told.trace_id,
        "received_at": _time(course.received_at_ns),
        "dispatched_at": _time(course.dispatched_at_ns),
        "endpoints": list(told.endpoints),
        "request_bytes": told.request_bytes,
        "answer_bytes": told.answer_bytes,
        "error_source": told.error_source,
        "refused_by": None
        if told.refused_by is None
        else {name: getattr(told.refused_by, name) for name in told.refused_by.__struct_fields__},
        "holds": [{"id": hold.hold, "amount_nano": hold.amount} for hold in event.holds],
    }


def _course_of(trail: Trail) -> Course:
    if trail.closed is not None and trail.closed.course is not None:
        return trail.closed.course
    return Course() if trail.opened is None else Course(trail.opened.trace)


def _event_of(trail: Trail) -> UsageEvent:
    if trail.closed is not None:
        return trail.closed.event
    assert trail.opened is not None  # noqa: S101 - a trail has a record
    return interrupted_event(trail.opened, trail.opened.started_at_ns)


def _time(time_ns: int | None) -> str | None:
    """Return a time as the API writes it; None where it is not known."""
    return format_time(time_ns // 1_000) if time_ns else None
