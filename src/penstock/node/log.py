"""Log lines: one an event, `event key=value ...`, on stderr."""

import json
import logging
import re
import sys
import time

_BARE = re.compile(r"[^\s\"'=\\\x00-\x1f\x7f-\xa0\u2028\u2029]+")


def line(event: str, **fields: object) -> str:
    r"""Return one line, whatever the fields hold: what could break it is quoted and escaped.

    >>> line("worker started", slot=0, path="a b")
    'worker started slot=0 path="a b"'
    >>> line("config rejected", finding="x\ny")
    'config rejected finding="x\\ny"'
    """
    parts = [event]
    for name, value in fields.items():
        text = str(value)
        parts.append(f"{name}={text if _BARE.fullmatch(text) else json.dumps(text)}")
    return " ".join(parts)


def configure() -> None:
    """Send the process's log to stderr, times in UTC."""
    formatter = logging.Formatter(
        "%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s %(message)s", "%Y-%m-%dT%H:%M:%S"
    )
    formatter.converter = time.gmtime
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    # One line a request to the control plane would drown everything else.
    for name in ("httpx", "httpcore", "uvicorn.access"):
        logging.getLogger(name).setLevel(logging.WARNING)
