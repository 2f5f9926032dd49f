"""All operations at `/v1`, and how each protocol tells its callers that one failed."""

from typing import Final

from penstock.gateway.dialects import messages, oip, openai, responses
from penstock.gateway.dialects.messages import COUNT_TOKENS, MESSAGES
from penstock.gateway.dialects.openai import Operation
from penstock.gateway.dialects.responses import RESPONSES
from penstock.gateway.dialects.translate import DONE
from penstock.kit.errors import Refusal

OPERATIONS: Final[dict[bytes, Operation]] = openai.OPERATIONS | {
    operation.path.encode(): operation for operation in (MESSAGES, COUNT_TOKENS, RESPONSES)
}


class Telling:
    """How OpenAI's older operations tell of errors."""

    stream_end = DONE
    """What the last event of a stream is, also of one that failed."""

    def body(self, refusal: Refusal, request_id: bytes) -> bytes:
        """Return the body of an answer.

        Args:
            refusal: What went wrong.
            request_id: What the request is called.
        """
        del request_id
        return openai.error_body(refusal)

    def event(self, refusal: Refusal, request_id: bytes) -> bytes:
        """Return the event of a stream."""
        return b"data: " + self.body(refusal, request_id) + b"\n\n"


class _Oip(Telling):
    stream_end = b""

    def body(self, refusal: Refusal, request_id: bytes) -> bytes:
        del request_id
        return oip.error_body(refusal)


class _Messages(Telling):
    stream_end = b""

    def body(self, refusal: Refusal, request_id: bytes) -> bytes:
        return messages.error_body(refusal, request_id)

    def event(self, refusal: Refusal, request_id: bytes) -> bytes:
        return b"event: error\n" + super().event(refusal, request_id)


class _Responses(Telling):
    stream_end = b""

    def event(self, refusal: Refusal, request_id: bytes) -> bytes:
        del request_id
        return b"event: error\ndata: " + responses.error_in_event(refusal) + b"\n\n"


_OPENAI: Final = Telling()
_OIP: Final = _Oip()
_MESSAGES: Final = _Messages()
_RESPONSES: Final = _Responses()


def telling_of(target: bytes) -> Telling:
    """Return how callers of a path are told of errors."""
    if target.startswith(messages.PATH):
        return _MESSAGES
    if target == responses.PATH:
        return _RESPONSES
    return _OIP if oip.is_path(target) else _OPENAI
