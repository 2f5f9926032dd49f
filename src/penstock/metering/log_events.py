"""What is logged of usage."""

from penstock.kit.logs.event import Event, Level

USAGE_CONFLICTS = Event(
    "metering.usage_conflicts", Level.WARNING, "Events have a stored id and another content."
)
STORED_ONE_BY_ONE = Event(
    "metering.stored_one_by_one", Level.WARNING, "Batches could not be stored together."
)
