"""What can go wrong with API keys, rights and repeated requests."""

from functools import partial

from penstock.kit.errors import ErrorCode, Source, declare_refusal

_refusal = partial(declare_refusal, "access")


KEY_INVALID = _refusal(
    "key_invalid",
    400,
    "invalid_key",
    public="The key cannot be like that.",
    cause="A member of the key is of the wrong form or out of range; the message says which.",
    caller_action="Correct the member that the message names.",
)

KEY_REVOKED = _refusal(
    "key_revoked",
    409,
    "key_revoked",
    public="The key was revoked.",
    cause="Revoking a key is final.",
    caller_action="Create another key.",
)

ROTATION_CONFLICT = _refusal(
    "rotation_conflict",
    409,
    "rotation_conflict",
    public="The key has two live secrets already.",
    cause="The secret before the present one is still in its grace period.",
    caller_action="Wait until it ends, revoke that secret, or rotate without a grace period.",
)

SECRET_REVOKED = _refusal(
    "secret_revoked",
    409,
    "secret_revoked",
    public="The secret was revoked before.",
    cause="Revoking a secret is final.",
    caller_action="None: it does not work any more.",
)

GRANT_EXCEEDED = _refusal(
    "grant_exceeded",
    403,
    "grant_exceeded",
    public="Nobody can give more rights than they have.",
    cause="The role or a scope asked for goes beyond those of the caller.",
    caller_action="Ask for a lesser role, or have somebody with more rights do it.",
)

OPERATION_DENIED = _refusal(
    "operation_denied",
    403,
    "operation_denied",
    public="Your role does not allow this.",
    cause="The table of roles and operations has a no, or nothing, for this role and operation.",
    caller_action="Have somebody with a role that allows it do it.",
)

KEY_REFUSED = _refusal(
    "key_refused",
    401,
    "invalid_api_key",
    public="The API key is not valid here.",
    cause=(
        "It is none of ours, revoked, expired, disabled, of a suspended organization, used from an "
        "address that it does not allow, or without the scope that this needs."
    ),
    caller_action="Use a key that is valid; its owner sees its state in the list of keys.",
)

IDEMPOTENCY_KEY_INVALID = _refusal(
    "idempotency_key_invalid",
    400,
    "invalid_idempotency_key",
    public="The idempotency key cannot be used.",
    cause="`Idempotency-Key` is not 1 to 255 printable ASCII characters.",
    caller_action="Send a random UUID for each request, and the same one when it is repeated.",
)

IDEMPOTENCY_MISMATCH = _refusal(
    "idempotency_mismatch",
    422,
    "idempotency_mismatch",
    public="This idempotency key was used for another request.",
    cause="Method, path or body differ from those that the key was used with in the last 24 h.",
    caller_action="Use a new idempotency key for a new request.",
)

IDEMPOTENCY_IN_FLIGHT = ErrorCode(
    code="err:control:access:idempotency_in_flight",
    status=409,
    source=Source.DOWNSTREAM,
    retryable=True,
    public="The same request is being worked on.",
    conventional_type="invalid_request_error",
    conventional_code="idempotency_in_flight",
    cause="A request with this idempotency key came before and was not answered yet.",
    caller_action="Repeat it after a second; then it gets the answer of the first.",
    operator_action="None, unless it goes on for a minute: then look for slow statements.",
)

PEPPER_INVALID = ErrorCode(
    code="err:control:access:pepper_invalid",
    status=500,
    source=Source.INTERNAL,
    retryable=False,
    public="The pepper of API keys cannot be used.",
    conventional_type="server_error",
    conventional_code="internal_error",
    cause="A pepper in `secrets/` is too short or can be guessed, or there are more than two.",
    caller_action="None; the control plane does not start.",
    operator_action=(
        "Put the file that the message names back from a backup. A new pepper makes every key "
        "that was hashed under the lost one useless."
    ),
)
