"""Events: what can be logged, declared once with its name, its level and what it means."""

import json
import logging
import re
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from enum import IntEnum

from penstock.kit.logs.values import Plain, Value, plain

ROOT = "penstock"
"""The logger above those of all rooms."""

_BARE = re.compile(r"[^\s\"'=\\\x00-\x1f\x7f-\xa0\u2028\u2029\u202a-\u202e\u2066-\u2069]+")


_request: ContextVar[dict[str, Value]] = ContextVar("request", default={})  # noqa: B039  # never changed


def know_request(**fields: Value) -> None:
    """Say these fields in each event of the request that the running task serves."""
    _request.set(fields)


class Level(IntEnum):
    """How urgent an event is; the figures are those of `logging`."""

    DEBUG = logging.DEBUG
    INFO = logging.INFO
    WARNING = logging.WARNING
    ERROR = logging.ERROR
    CRITICAL = logging.CRITICAL


@dataclass(frozen=True, slots=True)
class Event:
    """A declared event. Each room declares its own in its `log_events.py`."""

    name: str
    """`<room>.<what_happened>`, stable for ever."""
    level: Level
    meaning: str
    """What it means, and what to do if something is to be done (documentation)."""

    @property
    def words(self) -> str:
        """What happened, for people."""
        return self.name.partition(".")[2].replace("_", " ")

    def log(self, *, bug: BaseException | None = None, **fields: Value) -> None:
        """Log that it happened.

        Args:
            bug: An exception that nobody expected: its traceback is logged, too.
            fields: What there is to know; neither secrets nor what callers sent.
        """
        logger = logging.getLogger(f"{ROOT}.{self.name.partition('.')[0]}")
        if logger.isEnabledFor(self.level):
            logger.log(self.level, Entry(self, _request.get() | fields), exc_info=bug)


class Entry:
    """One occurrence of an event, as the message of a `logging.LogRecord`."""

    __slots__ = ("event", "fields")

    def __init__(self, event: Event, fields: dict[str, Value]) -> None:
        """See the class."""
        self.event = event
        self.fields: dict[str, Plain] = {name: plain(name, value) for name, value in fields.items()}

    def __str__(self) -> str:
        """Return it as one line for people."""
        return line(self.event.words, self.fields)


def line(words: str, fields: Mapping[str, Plain]) -> str:
    r"""Return one line, whatever the fields hold: what could break it is quoted and escaped.

    >>> line("worker started", {"slot": 0, "path": "a b"})
    'worker started slot=0 path="a b"'
    >>> line("config rejected", {"finding": "x\ny"})
    'config rejected finding="x\\ny"'
    """
    parts = [words]
    for name, value in fields.items():
        text = value if isinstance(value, str) else json.dumps(value)
        is_bare = not isinstance(value, str) or _BARE.fullmatch(text)
        parts.append(f"{name}={text if is_bare else json.dumps(text)}")
    return " ".join(parts)
