"""One admitted request by HTTP: what an engine is sent, and what of its answer the caller sees.

Steps 5 to 7: forward, stream and tap. What it shares with other protocols is in `dispatch`.
"""

from typing import TYPE_CHECKING, Final

import msgspec

from penstock.gateway.admit import STEER_SCOPE, Admission
from penstock.gateway.dialects.errors import REFUSED_BY_ENGINE
from penstock.gateway.dialects.openai import error_status, error_text
from penstock.gateway.dispatch import NEVER, Dispatch
from penstock.gateway.errors import BAD_ANSWER, CLOSED_EARLY, FAILED
from penstock.gateway.failure import PASSED_STATUSES, dropped, error_in_answer
from penstock.gateway.form import Form
from penstock.gateway.forms import form_of
from penstock.gateway.forward import Pool, UpstreamConnection
from penstock.gateway.limits import ANSWER_BYTES
from penstock.gateway.offer import ServedUpstream, Target
from penstock.gateway.request import Request
from penstock.gateway.runtime import Principal
from penstock.gateway.tap import Tap
from penstock.kit.errors import Refusal

if TYPE_CHECKING:
    from penstock.gateway.server import Downstream
    from penstock.gateway.worker import Worker

_OK: Final = 200
_EVENT_STREAM: Final = b"text/event-stream"
_PLAIN_ENCODINGS: Final = frozenset({b"", b"identity"})
HEAD_LAYOUT: Final = b"%b%bx-request-id: %b\r\n%b"
"""Of what an engine is sent: its start, the credential, our name of the request, further lines."""


class Exchange(Dispatch):
    """One admitted request by HTTP; see `RequestRecord` for its arguments."""

    __slots__ = ("_body", "_connection", "_form", "_silent_until_s")

    _layout = HEAD_LAYOUT + b"content-length: %d\r\n\r\n%b"
    """Behind the head: the length of the body, and the body."""
    _form: Form
    """Of what an engine was sent."""
    _downstream: "Downstream"
    _pool: Pool | None

    def __init__(
        self,
        worker: "Worker",
        downstream: "Downstream",
        request: Request,
        principal: Principal,
        admission: Admission,
    ) -> None:
        """See the class."""
        super().__init__(worker, downstream, request, principal, admission)
        self._connection: UpstreamConnection | None = None
        self._body: list[bytes] = []
        self._silent_until_s = NEVER
        """When the caller of a stream is told again that it is worked on."""

    def connected(self, connection: UpstreamConnection) -> None:
        """Send the request on its connection."""
        pool = self._pool
        assert pool is not None  # noqa: S101 - it is who calls
        self._connection = connection
        connection.lend(self)  # before anything can go wrong: else nobody would close it
        self._sent()
        admission, request = self._admission, self._request
        target = admission.target
        upstream = target.upstream
        self._form = form = form_of(admission)
        head, body = form.put(admission, pool, self._cap)
        lines = request.passed_lines(upstream, self._traceparent())
        session_id = request.session_id or admission.session
        if session_id is not None:
            lines += self._session_line(bytes(session_id), lines, upstream)
        lines += (
            target.fairness_line if request.fairness_id is None else self._fairness_line(target)
        )
        if pool.load.is_wanted and not admission.is_stream:
            lines += pool.load.ask(self._worker.now_s())
        name = self.request_id.encode("ascii")
        connection.transport.write(
            self._layout % (head, target.authorization, name, lines, len(body), body)
        )
        if self._downstream.is_paused:
            connection.transport.pause_reading()

    def _session_line(self, session_id: bytes, passed: bytes, upstream: ServedUpstream) -> bytes:
        """Return the line that names the caller's session to an engine, by a pseudonym."""
        header = upstream.engine.session_header
        if header is None or b"x-session-id" in passed:
            return b""
        session = b"session\0" + session_id
        name = self._worker.runtime.pseudonym(self._principal.organization, session)
        return b"%b: %b\r\n" % (header.encode("ascii"), name)

    def _fairness_line(self, target: Target) -> bytes:
        """Return the line that says among whom an engine is to be fair: organizations.

        Who may steer engines may say among whom else, as a platform that has users of its own.
        """
        header, fairness_id = target.upstream.engine.fairness_header, self._request.fairness_id
        if header is None or fairness_id is None or STEER_SCOPE not in self._principal.scopes:
            return target.fairness_line
        return b"%b: %b\r\n" % (header.encode("ascii"), fairness_id)

    # Steps 6 and 7: stream the answer, tap its usage

    def answer_begun(self) -> None:
        """Decide from the head of the answer how it is relayed."""
        connection = self._connection
        assert connection is not None  # noqa: S101 - it is who calls
        self._began()
        self._reply.content_type = connection.content_type
        self._header_id = connection.answer_id
        if connection.load_report is not None and self._pool is not None:
            load, in_flight = self._pool.load, self._pool.in_flight
            load.reported(connection.load_report, in_flight, self._worker.now_s())
        if connection.status != _OK:
            return
        self._attempts.answered()
        if connection.content_encoding in _PLAIN_ENCODINGS:
            if connection.content_type[: len(_EVENT_STREAM)].lower() == _EVENT_STREAM:
                self._tap = self._form.make_tap(self._admission, self._cap)
            else:
                self._tap = self._form.make_plain_tap(self._admission, connection)
                self._reply.is_binary = self._tap is not None

    def answer_body(self, data: bytes) -> None:
        """Relay a piece of a stream; keep a piece of a plain answer."""
        self._is_touched = True
        tap = self._tap
        if tap is None:
            self._answer_bytes += len(data)
            self._body.append(data)
            if self._answer_bytes > ANSWER_BYTES:
                self._fail(Refusal(BAD_ANSWER))
            return
        if not tap.frame_count:  # many engines send their head long before
            self._first_byte_ns = self._worker.wall_ns()
            self._has_read()
        shown = tap.feed(data)
        if tap.error is not None:
            self._fail_in_stream(tap, tap.error, shown)
        elif shown:
            self._reply.relay(shown)

    def answer_complete(self) -> None:
        """End well, or as what the engine's answer turned out to be."""
        connection = self._connection
        assert connection is not None  # noqa: S101 - it is who calls
        if self._tap is not None:
            self._end_stream(self._tap, connection)
        elif connection.status != _OK:
            self._fail_by_status(connection)
        else:
            self._end_plain(connection)

    def _fail_by_status(self, connection: UpstreamConnection) -> None:
        status = connection.status
        refusal = self._form.failure(self._admission, connection, b"".join(self._body))
        refusal = self._adapter_gone(status, self._too_long(refusal))
        refusal = dropped(refusal, connection.dropped_reason)
        if self._sent_elsewhere(status, refusal):
            return
        is_passed = refusal.error is REFUSED_BY_ENGINE and status in PASSED_STATUSES
        self._fail(self._attempts.verdict(refusal), status=status if is_passed else None)

    def _fail_under_200(self, error: bytes) -> None:
        refusal = self._too_long(error_in_answer(error))
        if not self._sent_elsewhere(error_status(error), refusal):
            self._fail(self._attempts.verdict(refusal))

    def _fail_in_stream(self, tap: Tap, error: bytes, shown: bytes) -> None:
        """End as the engine's error event says: the stream well formed, and paid for by nobody."""
        reply = self._reply
        if not reply.is_begun:
            self._fail_under_200(error)
            return
        if shown:
            reply.relay(shown)
        refusal = self._redacted(Refusal(FAILED, error_text(error)))
        reply.end_in_error(refusal, is_inside_frame=tap.is_inside_frame)
        self._blame_engine()
        self._first_byte_ns = None
        self._settle("upstream_error", FAILED)

    def _end_stream(self, tap: Tap, connection: UpstreamConnection) -> None:
        rest = tap.finish()
        if tap.error is not None:
            self._fail_in_stream(tap, tap.error, rest)
            return
        if not connection.has_length and not tap.is_done:
            self._fail(Refusal(CLOSED_EARLY))
            return
        if tap.is_empty:
            self._fail(Refusal(BAD_ANSWER))
            return
        self._reply.end_stream(rest)
        self._settle("ok", None)

    def _end_plain(self, connection: UpstreamConnection) -> None:
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        if connection.content_encoding not in _PLAIN_ENCODINGS:
            self._fail(Refusal(BAD_ANSWER))
            return
        try:
            answer = self._form.read(self._admission, connection, body, self._cap)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            self._fail(Refusal(BAD_ANSWER))
            return
        reading = answer.reading
        if reading.error is not None:
            self._fail_under_200(reading.error)
            return
        if self._reply.is_held:  # the caller was told to expect a stream
            self._fail(Refusal(BAD_ANSWER))
            return
        self._reply.lines += answer.lines
        self._reply.content_type = answer.content_type or self._reply.content_type
        self._reply.end_plain(answer.body)
        self._says = reading
        if reading.text_bytes is not None:
            self._answer_bytes = reading.text_bytes
        self._settle("ok", None)

    def answer_failed(self, refusal: Refusal) -> None:
        """End an answer that broke off or makes no sense."""
        tap = self._tap
        if tap is not None and tap.is_done and tap.usage is not None:
            # All of it came; only the formal end is missing.
            self._reply.end_stream()
            self._settle("ok", None)
            return
        self._fail(refusal)

    def sweep(self, now_s: float) -> None:
        """Look at the deadlines, and at how long the caller heard nothing."""
        if self._worker.keep_alive_s and self._was_sent:
            self._keep_alive(now_s)
        super().sweep(now_s)

    def _keep_alive(self, now_s: float) -> None:
        """Tell the caller of a stream that is silent for long that it is worked on; see ADR 41."""
        admission, tap = self._admission, self._tap
        if not admission.is_stream or admission.call is not None or admission.upload is not None:
            return
        if self.is_settled or self._downstream.is_paused:
            return
        if self._is_touched or self._silent_until_s == NEVER:
            self._silent_until_s = now_s + self._worker.keep_alive_s
        elif now_s >= self._silent_until_s and (tap is None or not tap.is_inside_frame):
            self._silent_until_s = now_s + self._worker.keep_alive_s
            self._reply.keep_alive()

    # How it can end otherwise

    def _blame_engine(self) -> None:
        connection, pool = self._connection, self._pool
        if connection is None or pool is None or connection.is_failure:
            return
        if connection.serves(self):  # its answer is never completed
            pool.health.failed()
        connection.is_failure = True

    def pause(self) -> None:
        """Stop reading from the engine: the caller is slower."""
        connection = self._connection
        if connection is not None and not connection.transport.is_closing():
            connection.transport.pause_reading()

    def resume(self) -> None:
        """Read from the engine again."""
        connection = self._connection
        if connection is not None and not connection.transport.is_closing():
            connection.transport.resume_reading()

    def closed(self) -> None:
        """Send the last bytes: the usage is on disk."""
        reply = self._reply
        self._downstream.end_exchange(self, reply.last_bytes, keep_alive=reply.keeps_alive)

    def _let_go(self) -> None:
        """Give up what is still under way with an engine."""
        pool, connection = self._pool, self._connection
        self._pool = self._connection = None
        self._body = []
        if pool is None:
            return
        self._leave(pool)
        if connection is None:
            pool.give_up(self)
        elif connection.serves(self):
            connection.abort()
        elif self._downstream.is_paused and not connection.transport.is_closing():
            connection.transport.resume_reading()
