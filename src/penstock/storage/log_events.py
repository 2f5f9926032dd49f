"""What is logged of the database."""

from penstock.kit.logs.event import Event, Level

DATABASE_REPLACED = Event(
    "storage.database_replaced",
    Level.WARNING,
    "The database file is not the one that was opened; restart to use it.",
)
DATABASE_UNAVAILABLE = Event(
    "storage.database_unavailable", Level.WARNING, "The database does not answer or is locked."
)
