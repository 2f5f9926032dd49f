"""Finds a request in an access log, whichever form its lines have."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

MOST_LINES: Final = 20
_LINE_CHARS: Final = 4_000


def find_lines(path: Path, name: str) -> list[str]:
    """Return the lines that name a request, oldest first, `MOST_LINES` at most.

    Args:
        path: The access log; one that is not there has none.
        name: A request's id, its event's id, or that of its trace; it stands there as a whole word.

    Raises:
        OSError: It cannot be read.
    """
    found: list[str] = []
    for line in _read(path, name.encode()):
        if names(line, name):
            found.append(line)
        if len(found) == MOST_LINES:
            break
    return found


def names(line: str, name: str) -> bool:
    """Return whether a line names a request.

    >>> names('"request_id":"a-1","status":429', "a-1"), names('"request_id":"a-12"', "a-1")
    (True, False)
    """
    word = rf"(?<![\w.-]){re.escape(name)}(?![\w.-])"
    return re.search(word, line) is not None


def _read(path: Path, wanted: bytes) -> Iterator[str]:
    try:
        with path.open("rb") as log:
            for line in log:
                if wanted in line:
                    yield line.decode(errors="replace").rstrip("\n")[:_LINE_CHARS]
    except FileNotFoundError:
        return
