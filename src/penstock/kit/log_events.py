"""What building blocks log."""

from penstock.kit.logs.event import Event, Level

NO_DEBUG_SOCKET = Event(
    "kit.no_debug_socket",
    Level.WARNING,
    "`penstock debug` cannot ask this process; all else works.",
)
