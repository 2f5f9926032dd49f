"""In which form a request is put to an engine by gRPC, and how its answer is read."""

from typing import TYPE_CHECKING, Final

import msgspec

from penstock.gateway.admit import Admission
from penstock.gateway.dialects.grpc import PREFIX_BYTES, as_http, frame, is_one_frame
from penstock.gateway.dialects.oip import INFER, MODEL_METADATA, MODEL_READY, STREAM_INFER
from penstock.gateway.dialects.oip_grpc import (
    address,
    name_message,
    read_infer_response,
    renamed,
)
from penstock.gateway.dialects.openai import Operation, Reading
from penstock.gateway.failure import oip_failure
from penstock.gateway.form import Answer, Form
from penstock.gateway.offer import Target
from penstock.gateway.tap_grpc import GrpcTap
from penstock.kit.errors import Refusal
from penstock.kit.protobuf import MalformedError

if TYPE_CHECKING:
    from penstock.gateway.http2.client import Http2Pool

SERVICE: Final = "/inference.GRPCInferenceService/"
_RPCS: Final[dict[Operation, str]] = {
    INFER: "ModelInfer",
    STREAM_INFER: "ModelStreamInfer",
    MODEL_METADATA: "ModelMetadata",
    MODEL_READY: "ModelReady",
}
PATHS: Final = {operation: SERVICE + name for operation, name in _RPCS.items()}
_NOTHING_READ = Reading(None, None)
_encode = msgspec.json.Encoder().encode


class GrpcForm(Form):
    """The Open Inference Protocol's over gRPC: a message under the server's name of the model."""

    def put_message(self, admission: Admission, pool: "Http2Pool") -> tuple[bytes, bytes]:
        """Return the block that begins the head, and the message, framed."""
        call, model = admission.call, admission.target.deployment.model
        assert call is not None  # noqa: S101 - it is what makes it one of this form
        if admission.operation.has_usage:
            message = address(admission.body, model)
        else:
            message = name_message(model, call.version)
        return pool.head(PATHS[admission.operation]), frame(message)

    def readdress(self, admission: Admission, target: Target) -> Admission | None:
        """Return a request as it is sent to another target."""
        return msgspec.structs.replace(admission, target=target)

    def make_tap(self, admission: Admission, cap: int | None) -> GrpcTap:
        """Return what reads its stream."""
        del admission, cap
        return GrpcTap()

    def read_message(self, admission: Admission, body: bytes) -> Answer:
        """Return what a framed message says, and how the caller gets it.

        Raises:
            MalformedError, UnicodeDecodeError: It is none of this protocol.
        """
        if not is_one_frame(body):
            raise MalformedError
        operation = admission.operation
        if operation is MODEL_METADATA:
            return Answer(_NOTHING_READ, frame(renamed(body, PREFIX_BYTES, admission.target.alias)))
        if operation is MODEL_READY:
            return Answer(_NOTHING_READ, body)
        return Answer(read_infer_response(body, PREFIX_BYTES), body)

    def ended(self, admission: Admission, status: int, words: str) -> Refusal:
        """Return what a status other than OK means.

        Args:
            admission: What was asked for.
            status: The server's status code.
            words: What it says of it.
        """
        has_version = admission.call is not None and bool(admission.call.version)
        body = _encode({"error": words})
        return oip_failure(as_http(status), body, None, has_version=has_version)
