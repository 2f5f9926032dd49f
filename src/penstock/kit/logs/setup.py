"""How a process logs: to stderr, in one form, from one level on."""

import atexit
import io
import logging
import sys
import time
from typing import Any, Literal, TextIO, get_args

from penstock.kit import log_events
from penstock.kit.logs.event import ROOT, Level
from penstock.kit.logs.lines import JsonLines, TextLines
from penstock.kit.logs.repeats import Repeats
from penstock.kit.logs.values import Plain

Form = Literal["auto", "json", "text"]
"""`auto` is text on a terminal, and JSON elsewhere."""
LevelName = Literal["debug", "info", "warning", "error"]
LEVELS: tuple[LevelName, ...] = get_args(LevelName)

# Libraries that tell of each of our calls, with header fields and parameters.
_QUIET = ("httpx", "httpcore", "uvicorn.access", "alembic", "hpack", "botocore", "aiokafka")


def is_text(form: Form, stream: TextIO) -> bool:
    """Tell whether lines of this form are text on this stream."""
    return form == "text" or (form == "auto" and stream.isatty())


class Handler(logging.StreamHandler[TextIO]):
    """Writes a process's log.

    Args:
        stream: Where lines go.
        form: How they look.
        process: What kind of process this is: `agent`, `caches`, `worker`, `control`.
        repeats: Which lines are left out.
    """

    def __init__(self, stream: TextIO, form: Form, process: str, repeats: Repeats) -> None:
        """See the class."""
        super().__init__(stream)
        self._repeats = repeats
        self.context: dict[str, Plain] = {"process": process}
        """What every line says."""
        self.setFormatter(
            TextLines(self.context, has_colours=stream.isatty())
            if is_text(form, stream)
            else JsonLines(self.context)
        )
        if isinstance(stream, io.TextIOWrapper):
            # What a terminal or file cannot show is escaped, and no reason to lose a line.
            stream.reconfigure(errors="backslashreplace")

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, and what is due of those that were left out."""
        for due in self._repeats.due():
            super().emit(due)
        if self._repeats.take(record):
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # `logging`'s name
        """Let go of a line that nobody takes: its reader is gone, so nobody can be told."""
        if not self.stream.closed and not isinstance(sys.exception(), OSError):
            super().handleError(record)

    def tell_repeats(self, *, is_end: bool) -> None:
        """Write what is due of records that were left out."""
        self.acquire()
        try:
            for due in self._repeats.due(is_end=is_end):
                super().emit(due)
        finally:
            self.release()


def configure(process: str, *, form: Form = "auto", level: LevelName = "info") -> None:
    """Send the log of this process, and of the libraries in it, to stderr."""
    root = logging.getLogger()
    for handler in _handlers():
        root.removeHandler(handler)
    root.addHandler(Handler(sys.stderr, form, process, Repeats(time.monotonic)))
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    set_level(level)
    atexit.register(tell_repeats, is_end=True)


def know(**context: Plain) -> None:
    """Say these fields in every line from now on."""
    for handler in _handlers():
        handler.context |= context


def tell_repeats(*, is_end: bool = False) -> None:
    """Write what is due of lines that were left out; called from time to time."""
    for handler in _handlers():
        handler.tell_repeats(is_end=is_end)


def set_level(level: LevelName) -> None:
    """Log from this level on; libraries say no more than at `info`, since they tell contents."""
    number = Level[level.upper()]
    logging.getLogger().setLevel(max(number, Level.INFO))
    logging.getLogger(ROOT).setLevel(number)


def change_level(level: LevelName, *, user: int | None = None) -> None:
    """Log from this level on, until it is changed again or the process ends.

    Args:
        level: Further events have it, or one above.
        user: Who asked for it, if that is known here: a user of this machine.
    """
    before = get_level()
    who: dict[str, Any] = {} if user is None else {"user": user}
    # Whichever of both levels says more, the change is said.
    set_level(min(before, level, key=LEVELS.index))
    log_events.LOG_LEVEL_CHANGED.log(before=before, now=level, **who)
    set_level(level)


def get_level() -> LevelName:
    """Return the level that is logged from."""
    number = logging.getLogger(ROOT).getEffectiveLevel()
    return next((name for name in LEVELS if Level[name.upper()] >= number), "error")


def _handlers() -> list[Handler]:
    return [each for each in logging.getLogger().handlers if isinstance(each, Handler)]
