"""The log of this process, for a test to do with as it likes."""

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from penstock.kit.logs.repeats import Repeats
from penstock.kit.logs.setup import Handler


@contextmanager
def kept_logging() -> Iterator[logging.Logger]:
    """Leave levels and handlers as they were; yield the logger of all."""
    root, ours = logging.getLogger(), logging.getLogger("penstock")
    before = root.level, ours.level, root.handlers[:]
    try:
        yield root
    finally:
        root.setLevel(before[0])
        ours.setLevel(before[1])
        root.handlers[:] = before[2]


@contextmanager
def log_in_memory() -> Iterator[io.StringIO]:
    """Log as JSON into memory; yield what is said."""
    stream = io.StringIO()
    with kept_logging() as root:
        root.handlers[:] = [Handler(stream, "json", "test", Repeats(lambda: 0.0))]
        yield stream
