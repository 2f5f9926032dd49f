"""Lines: a log record as one line of JSON, or as one line for people."""

import hashlib
import json
import logging
import traceback
from collections.abc import Mapping
from typing import ClassVar

from penstock.kit.logs.event import Entry, Event, Level, line
from penstock.kit.logs.values import Plain, text
from penstock.kit.moments import format_time

LIBRARY = Event("library.message", Level.INFO, "A library says something; the level is its own.")
MAX_TRACEBACK_CHARS = 16_384
MAX_TRACEBACKS = 256
"""How many are remembered as told."""
_TRACEBACK_ID_CHARS = 12
_FRAMES = 40


class Lines(logging.Formatter):
    """What both forms have in common: which fields a record has.

    A traceback is told once: later records with the same one have its id alone.

    Args:
        context: Fields that every line of this process has, such as `process`.
    """

    def __init__(self, context: Mapping[str, Plain]) -> None:
        """See the class."""
        super().__init__()
        self._context = context
        self._told: dict[str, None] = {}

    def _fields(self, record: logging.LogRecord) -> dict[str, Plain]:
        """Return what a record says besides its event."""
        entry = record.msg
        fields: dict[str, Plain]
        if isinstance(entry, Entry):
            fields = dict(entry.fields)
        else:
            fields = {"logger": text(record.name), "message": text(_message(record))}
        suppressed = getattr(record, "suppressed", 0)
        if suppressed:
            fields["suppressed"] = suppressed
        if record.exc_info and record.exc_info[1] is not None:
            fields |= self._bug(record.exc_info[1])
        return fields

    def _bug(self, error: BaseException) -> dict[str, Plain]:
        """Return an exception's fields."""
        frames = traceback.extract_tb(error.__traceback__)
        where = " ".join(f"{frame.filename}:{frame.lineno}" for frame in frames)
        digest = hashlib.sha256(f"{type(error).__qualname__} {where}".encode(errors="replace"))
        name = digest.hexdigest()[:_TRACEBACK_ID_CHARS]
        fields: dict[str, Plain] = {
            "bug": type(error).__name__,
            "why": text(str(error)),
            "traceback_id": name,
        }
        if name not in self._told:
            if len(self._told) >= MAX_TRACEBACKS:
                del self._told[next(iter(self._told))]
            self._told[name] = None
            told = "".join(traceback.format_exception(error, limit=-_FRAMES))
            fields["traceback"] = text(told, MAX_TRACEBACK_CHARS)
        return fields


class JsonLines(Lines):
    """One JSON object a line, in ASCII: nothing in it can end the line before its end."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as a line."""
        entry = record.msg
        event = entry.event if isinstance(entry, Entry) else LIBRARY
        head: dict[str, Plain] = {
            "ts": _timestamp(record),
            "level": record.levelname.lower(),
            "event": event.name,
            **self._context,
        }
        return json.dumps(head | self._fields(record) | head, separators=(",", ":"))


class TextLines(Lines):
    """One line for people: time, level, what happened, `key=value`.

    Args:
        context: See `Lines`; not shown, since people look at one process's log at a time.
        has_colours: Whether levels have colours; for terminals only.
    """

    _COLOURS: ClassVar = {"WARNING": "33", "ERROR": "31", "CRITICAL": "1;31", "DEBUG": "2"}

    def __init__(self, context: Mapping[str, Plain], *, has_colours: bool) -> None:
        """See the class."""
        super().__init__(context)
        self._has_colours = has_colours

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as a line; a traceback follows it, indented."""
        fields = self._fields(record)
        told = fields.pop("traceback", None)
        entry = record.msg
        if isinstance(entry, Entry):
            words = entry.event.words
        else:
            words = f"{fields.pop('logger')}: {_escape(str(fields.pop('message')))}"
        level = f"{record.levelname:<8}"
        colour = self._COLOURS.get(record.levelname)
        if self._has_colours and colour:
            level = f"\x1b[{colour}m{level}\x1b[0m"
        first = f"{_timestamp(record)} {level} {line(words, fields)}"
        if told is None:
            return first
        return "\n  ".join([first, *map(_escape, str(told).splitlines())])


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError, KeyError):  # the library's mistake, and no reason to lose it
        return str(record.msg)


def _escape(told: str) -> str:
    # As it is unless something in it could move a terminal's cursor or end the line.
    return told if told.isprintable() else json.dumps(told)[1:-1]


def _timestamp(record: logging.LogRecord) -> str:
    return format_time(int(record.created * 1e6))
