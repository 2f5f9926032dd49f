"""The access log: one line for each request that ended, enough to explain what became of it.

Lines are made and written in a thread, of what waits in a bounded queue: a slow disk makes lines
missing, which are counted, and nothing else slow. No line holds content of prompts or answers.
"""

import asyncio
import json
import os
import select
import sys
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from penstock.contract.finished import FinishedRequest
from penstock.kit.logs.event import line
from penstock.kit.logs.redaction import redact
from penstock.kit.logs.setup import Form, is_text
from penstock.kit.moments import format_time
from penstock.node import log_events

Which = Literal["off", "errors", "all"]
"""`errors` are requests that were refused, failed, or whose caller left."""
MAX_WAITING: Final = 50_000
"""Requests that wait for their line."""
_AT_ONCE: Final = 1_000
_ROUND_S: Final = 0.1
_PATIENCE_MS: Final = 1_000
"""How long a pipe may be full before lines are given up."""
_ERROR_STATUS: Final = 400
_APPEND: Final = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
_encode = msgspec.json.Encoder().encode


class AccessLine(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """What a line says, in its order; what is not known or does not apply is left out.

    Times are milliseconds of this request.
    """

    ts: str
    level: str
    event: str
    process: str
    node: str
    slot: int
    request_id: str
    event_id: str = ""
    """Names its usage event, if an engine was asked: see `attempts`."""
    trace_id: str = ""
    organization: str = ""
    project: str = ""
    key_id: str = ""
    model: str = ""
    served_model: str = ""
    operation: str = ""
    stream: bool = False
    status: int
    outcome: str
    error: str = ""
    """The error's code: what it means and what to do is in the reference of errors."""
    error_source: str = ""
    """`downstream`, `upstream` or `internal`."""
    rule: str = ""
    """Id of the limit or budget that said no, and what it counts and gives."""
    rule_metric: str = ""
    rule_limit: int | None = None
    retry_after_s: int | None = None
    upstream: str = ""
    provider: str = ""
    endpoints: tuple[str, ...] = ()
    """Those that were tried, in order."""
    region: str = ""
    attempts: int = 0
    given_up: tuple[dict[str, Any], ...] = ()
    """Attempts before the last one: `upstream`, `reason`, `ms`."""
    admit_ms: float | None = None
    """From the request's last byte until it was admitted, or refused."""
    limits_ms: float | None = None
    """From there until limits and budgets had answered, and an endpoint was turned to."""
    first_byte_ms: float | None = None
    """From there until the first byte of the answer."""
    total_ms: float | None = None
    """From the request's last byte until the answer's last one."""
    input_tokens: int = 0
    cached_input_tokens: int | None = None
    cache_write_input_tokens: int | None = None
    output_tokens: int = 0
    reasoning_output_tokens: int | None = None
    usage_source: str = ""
    request_bytes: int = 0
    answer_bytes: int = 0
    service_tier: str = ""
    upstream_request_id: str = ""


class AccessLog:
    """Takes requests that ended, and writes their lines.

    Args:
        which: Which requests have one.
        path: The file; stdout when None. It is opened again after somebody moved it away.
        node: The node's id.
        form: How lines look; `auto` is text on a terminal.
    """

    def __init__(self, which: Which, path: str | None, node: str, form: Form) -> None:
        """See the class."""
        self._is_all = which == "all"
        self._path = None if path is None else Path(path)
        self._node = node
        self._is_text = form == "text" or (path is None and is_text(form, sys.stdout))
        self._waiting: deque[FinishedRequest] = deque()
        self._has_work = asyncio.Event()
        self._turn = threading.Lock()
        """One thread writes at a time: who ends may have left one behind."""
        self._file: int | None = None
        # Two figures, since two threads count: of one, each could undo what the other counted.
        self._too_many = self._not_written = 0

    @property
    def dropped(self) -> int:
        """Lines that are missing, since writing was too slow or failed."""
        return self._too_many + self._not_written

    def take(self, requests: Sequence[FinishedRequest]) -> None:
        """Take requests, as far as there is room."""
        wanted = requests if self._is_all else [each for each in requests if _is_error(each)]
        room = MAX_WAITING - len(self._waiting)
        self._waiting.extend(wanted[:room])
        self._too_many += max(0, len(wanted) - room)
        if wanted:
            self._has_work.set()

    async def run(self) -> None:
        """Write until cancelled, and then what is left."""
        try:
            while True:
                await self._has_work.wait()
                self._has_work.clear()
                await asyncio.sleep(_ROUND_S)  # many lines are written at once
                while self._waiting:
                    await asyncio.to_thread(self.write)
        finally:
            await asyncio.to_thread(self._write_rest)

    def write(self) -> bool:
        """Write lines of some that wait; return whether the disk or the reader took them."""
        with self._turn:
            count = min(len(self._waiting), _AT_ONCE)
            lines = deque(self._line(self._waiting.popleft()) for _ in range(count))
            try:
                _write_all(self._open(), lines)
            except OSError as error:
                self._not_written += len(lines)
                log_events.ACCESS_LOG_NOT_WRITTEN.log(path=self._path, error=error)
                return False
            return True

    def _write_rest(self) -> None:
        while self._waiting and self.write():
            pass

    def _open(self) -> int:
        """Return the file, opened anew where the one that is open has no name any more."""
        if self._path is None:
            return sys.stdout.fileno()
        if self._file is not None:
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(self._file), self._path.stat()):
                    return self._file
            os.close(self._file)
            self._file = None
        self._file = os.open(self._path, _APPEND, 0o600)
        return self._file

    def _line(self, request: FinishedRequest) -> bytes:
        made = access_line(request, self._node)
        if self._is_text:
            fields = msgspec.to_builtins(made)
            ts, level = fields.pop("ts"), fields.pop("level")
            for name in ("event", "process", "node"):
                del fields[name]
            words = f"{ts} {level.upper():<8} {log_events.REQUEST_ENDED.words}"
            return line(words, fields).encode() + b"\n"
        raw = _encode(made)
        if not raw.isascii() or b"\x7f" in raw:
            # As in every log: what ends a line, or is half a character, differs between readers.
            raw = json.dumps(msgspec.json.decode(raw), separators=(",", ":")).encode()
            raw = raw.replace(b"\x7f", b"\\u007f")
        return raw + b"\n"


def access_line(request: FinishedRequest, node: str) -> AccessLine:
    """Return what is said of a request."""
    by = request.refused_by
    has_engine = request.attempt_count > 0
    return AccessLine(
        ts=format_time(request.finished_at_ns // 1_000),
        level=log_events.REQUEST_ENDED.level.name.lower(),
        event=log_events.REQUEST_ENDED.name,
        process="agent",
        node=node,
        slot=request.slot,
        # The only words of callers and engines in it.
        request_id=redact(request.request_id),
        upstream_request_id=redact(request.upstream_request_id),
        event_id=request.event_id,
        trace_id=request.trace_id,
        organization=request.organization,
        project=request.project,
        key_id=request.key_id,
        model=request.model,
        served_model=request.served_model,
        operation=request.operation,
        stream=request.is_stream,
        status=request.status,
        outcome=request.outcome,
        error=request.error_code or "",
        error_source=request.error_source,
        rule="" if by is None else by.rule,
        rule_metric="" if by is None else by.metric,
        rule_limit=None if by is None else by.limit,
        retry_after_s=None if by is None else by.retry_after_s,
        upstream=request.upstream,
        provider=request.provider,
        endpoints=request.endpoints,
        region=request.region,
        attempts=request.attempt_count,
        given_up=tuple(
            {
                "upstream": each.upstream,
                "reason": each.reason,
                "ms": _ms(each.started_at_ns, each.finished_at_ns),
            }
            for each in request.earlier_attempts
        ),
        admit_ms=_ms(request.received_at_ns, request.started_at_ns),
        limits_ms=_ms(
            request.started_at_ns,
            request.dispatched_at_ns or (0 if by is None else request.finished_at_ns),
        ),
        first_byte_ms=_ms(request.dispatched_at_ns, request.first_byte_at_ns or 0),
        total_ms=_ms(request.received_at_ns, request.finished_at_ns),
        input_tokens=request.input_tokens,
        cached_input_tokens=request.cached_input_tokens,
        cache_write_input_tokens=request.cache_write_input_tokens,
        output_tokens=request.output_tokens,
        reasoning_output_tokens=request.reasoning_output_tokens,
        usage_source=request.usage_source if has_engine else "",
        request_bytes=request.request_bytes,
        answer_bytes=request.answer_bytes,
        service_tier=request.service_tier,
    )


def _is_error(request: FinishedRequest) -> bool:
    return request.outcome != "ok" or request.status >= _ERROR_STATUS


def _ms(began_at_ns: int, ended_at_ns: int) -> float | None:
    """Return the time between; None when one of them is not known."""
    if not began_at_ns or not ended_at_ns:
        return None
    return round((ended_at_ns - began_at_ns) / 1e6, 3)


def _write_all(file: int, lines: deque[bytes]) -> None:
    """Write lines, and take out those that are written.

    A pipe takes as much as `PIPE_BUF` whole or not at all, and at once when it says that it can:
    so a reader that hangs keeps nobody for longer than a moment, and no line is torn.

    Raises:
        OSError: The rest cannot be written, `TimeoutError` for a pipe that nobody reads.
    """
    ready = select.poll()
    ready.register(file, select.POLLOUT)
    while lines:
        size, count = len(lines[0]), 1
        while count < len(lines) and size + len(lines[count]) <= select.PIPE_BUF:
            size += len(lines[count])
            count += 1
        if not ready.poll(_PATIENCE_MS):
            message = "nobody reads it"
            raise TimeoutError(message)
        block = memoryview(b"".join(islice(lines, count)))
        while block:
            block = block[os.write(file, block) :]
        for _ in range(count):
            lines.popleft()
