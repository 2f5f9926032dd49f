"""An exchange whose request is still arriving: a large form is sent on at the engine's pace."""

from typing import TYPE_CHECKING, Final

from penstock.gateway.admit import Admission
from penstock.gateway.errors import BODY_TIMEOUT, FIRST_BYTE_TIMEOUT
from penstock.gateway.exchange import HEAD_LAYOUT, Exchange
from penstock.gateway.forward import UpstreamConnection
from penstock.gateway.limits import BODY_IDLE_S
from penstock.gateway.request import Request
from penstock.gateway.runtime import Principal
from penstock.kit.errors import Refusal

if TYPE_CHECKING:
    from penstock.gateway.server import Downstream
    from penstock.gateway.worker import Worker

_LAST_CHUNK: Final = b"0\r\n\r\n"
_NEVER: Final = float("inf")


class FormExchange(Exchange):
    """One large form on its way; see `RequestRecord` for the arguments.

    The caller is not read until there is a connection to an engine, nor while that is full. What
    left cannot be sent again, so it is tried elsewhere only while connecting fails. An answer that
    comes before the form's end is the last of both connections.
    """

    __slots__ = ("_is_stalled", "_silent_since_s", "_upload")

    _layout = HEAD_LAYOUT + b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n"

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
        assert admission.upload is not None  # noqa: S101 - it is a form
        self._upload = admission.upload
        self._is_stalled = False
        """The engine takes it more slowly than it comes."""
        self._silent_since_s = _NEVER

    def connected(self, connection: UpstreamConnection) -> None:
        """Send what is held; from now on what arrives goes on at once."""
        connection.outlet = self
        super().connected(connection)
        if self._upload.is_complete:
            connection.transport.write(_LAST_CHUNK)
            return
        self._deadline_s = _NEVER
        self._silent_since_s = self._worker.now_s()
        self._upload.send_to(self)
        if not self._is_stalled:
            self._downstream.read_on()

    def _sent_elsewhere(self, status: int | None, refusal: Refusal) -> bool:
        del status, refusal
        return False

    # What the upload calls

    def write(self, data: bytes) -> None:
        """Send a piece of the form."""
        connection = self._connection
        if connection is not None and data:
            self._silent_since_s = self._worker.now_s()
            connection.transport.write(b"%x\r\n%b\r\n" % (len(data), data))

    # What the caller's connection calls

    def upload_ended(self, *, keep_alive: bool) -> None:
        """Take note that all of the form is there.

        Args:
            keep_alive: Whether the caller's connection may stay open.
        """
        if not self._reply.is_begun:
            self._request.keep_alive = keep_alive
        connection = self._connection
        if connection is not None:
            connection.transport.write(_LAST_CHUNK)
            if self._first_byte_ns is None:
                self._deadline_s = self._worker.now_s() + self._first_byte_s

    def upload_failed(self, refusal: Refusal) -> None:
        """End: the rest of the form is not as it should be, and the engine never gets its end."""
        self._fail(refusal)

    def sweep(self, now_s: float) -> None:
        """Look at the deadlines."""
        super().sweep(now_s)
        if self.is_settled or self._upload.is_complete or self._first_byte_ns is not None:
            return
        silent_s = now_s - self._silent_since_s
        if not self._is_stalled:
            if silent_s >= BODY_IDLE_S:
                self._fail(Refusal(BODY_TIMEOUT), outcome="caller_gone")
        elif silent_s >= self._first_byte_s:
            self._fail(Refusal(FIRST_BYTE_TIMEOUT), outcome="timeout")

    # What the engine's connection calls

    def pause_upload(self) -> None:
        """Stop reading from the caller: the engine is slower."""
        self._is_stalled = True
        self._downstream.read_no_more()

    def resume_upload(self) -> None:
        """Read from the caller again."""
        self._is_stalled = False
        self._silent_since_s = self._worker.now_s()
        if not self.is_settled:
            self._downstream.read_on()

    def _let_go(self) -> None:
        """Give up the engine; a connection that waits for the rest of a form is no other's."""
        connection = self._connection
        super()._let_go()
        if connection is not None:
            connection.outlet = None
            if not self._upload.is_complete:
                connection.transport.abort()
