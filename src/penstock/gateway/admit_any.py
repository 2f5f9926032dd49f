"""Step 3, admit: which of its kinds a request is of."""

from penstock.gateway.admit import Admission, admit
from penstock.gateway.admit_form import admit_form
from penstock.gateway.admit_native import admit_native
from penstock.gateway.admit_oip import admit_call
from penstock.gateway.request import Request
from penstock.gateway.runtime import Runtime
from penstock.kit.errors import Refusal


def admit_request(runtime: Runtime, request: Request, body: bytes) -> Admission | Refusal:
    """Decide whether a request that is all there may be sent, and to what.

    Args:
        runtime: What the worker serves from.
        request: For an operation, by a known principal.
        body: All of it; empty where it is a form.
    """
    operation, principal = request.operation, request.principal
    assert operation is not None  # noqa: S101 - checked by the caller
    assert principal is not None  # noqa: S101 - operations are authenticated
    if request.upload is not None:
        return admit_form(runtime, principal, operation, request.upload, request.body_bytes)
    if request.call is not None:
        return admit_call(runtime, principal, request.call, body, request.json_length)
    if operation.is_native:
        return admit_native(runtime, principal, operation, body)
    return admit(runtime, principal, operation, body)
