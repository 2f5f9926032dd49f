"""What building blocks log."""

from penstock.kit.logs.event import Event, Level

LOG_LEVEL_CHANGED = Event(
    "kit.log_level_changed",
    Level.WARNING,
    "An operator asked for it, `user` on its machine; a restart takes it back.",
)
NO_DEBUG_SOCKET = Event(
    "kit.no_debug_socket",
    Level.WARNING,
    "`penstock debug` cannot ask this process; all else works.",
)
