"""What can go wrong at the control plane's door."""

from penstock.kit.errors import ErrorCode, PenstockError, Source

TOKEN_MISSING = ErrorCode(
    code="err:control:auth:token_missing",
    status=401,
    source=Source.DOWNSTREAM,
    retryable=False,
    public="This needs a token.",
    conventional_type="authentication_error",
    conventional_code="missing_token",
    cause="The request has no Authorization header, or one of another scheme.",
    caller_action="Send `Authorization: Bearer <token>`; a browser asks for it as the password.",
    operator_action="The tokens are in the data folder, in `secrets/`.",
)

TOKEN_WRONG = ErrorCode(
    code="err:control:auth:token_wrong",
    status=401,
    source=Source.DOWNSTREAM,
    retryable=False,
    public="The token is not the right one.",
    conventional_type="authentication_error",
    conventional_code="invalid_token",
    cause="The token is another one, e.g. the node's for the operator's, or was replaced.",
    caller_action=(
        "Use the admin token for the API and the page, the node token for shipping, and a "
        "registration token of the upstream for engines that register."
    ),
    operator_action="Compare `secrets/` of both data folders; restart after replacing a token.",
)

NATS_SETTING = ErrorCode(
    code="err:control:usage:nats_setting",
    status=500,
    source=Source.INTERNAL,
    retryable=False,
    public="The setting `nats_url` of the control plane is of no use.",
    conventional_type="server_error",
    conventional_code="internal_error",
    cause="The extra `penstock[nats]` is not installed, or a password stands in the address.",
    caller_action="None; the control plane does not start.",
    operator_action="Install the extra; put the password where `nats_password` leads.",
)

KAFKA_SETTING = ErrorCode(
    code="err:control:usage:kafka_setting",
    status=500,
    source=Source.INTERNAL,
    retryable=False,
    public="The setting `kafka` of the control plane is of no use.",
    conventional_type="server_error",
    conventional_code="internal_error",
    cause="The extra `penstock[kafka]` is not installed, or a PEM file cannot be read.",
    caller_action="None; the control plane does not start.",
    operator_action="Install the extra; look at the files that the message names.",
)

TOKEN_WEAK = ErrorCode(
    code="err:control:auth:token_weak",
    status=500,
    source=Source.INTERNAL,
    retryable=False,
    public="A secret of the control plane can be guessed.",
    conventional_type="server_error",
    conventional_code="internal_error",
    cause=(
        "A file in `secrets/` is empty, has fewer than 16 characters, repeats a pattern or is made "
        "of words like `changeme`, `secret` and `admin`."
    ),
    caller_action="None; the control plane does not start.",
    operator_action="Put a random one into the file that the message names, and start again.",
)

REQUEST_INVALID = ErrorCode(
    code="err:control:request:invalid",
    status=400,
    source=Source.DOWNSTREAM,
    retryable=False,
    public="A parameter of the request is wrong.",
    conventional_type="invalid_request_error",
    conventional_code="invalid_parameter",
    cause="A parameter is missing, unknown, of the wrong form or out of range.",
    caller_action="Correct the parameters that `errors` names.",
    operator_action="None: the caller's request is at fault.",
)

PATH_UNKNOWN = ErrorCode(
    code="err:control:request:path_unknown",
    status=404,
    source=Source.DOWNSTREAM,
    retryable=False,
    public="There is nothing at this path.",
    conventional_type="invalid_request_error",
    conventional_code="not_found",
    cause="The path is not one of the control plane's; models are served by the gateway.",
    caller_action="Compare the path with `/openapi.json`, and the port with the gateway's.",
    operator_action="None: the caller's request is at fault.",
)

METHOD_NOT_ALLOWED = ErrorCode(
    code="err:control:request:method_not_allowed",
    status=405,
    source=Source.DOWNSTREAM,
    retryable=False,
    public="This path does not take this method.",
    conventional_type="invalid_request_error",
    conventional_code="method_not_allowed",
    cause="The method is none of those that the header Allow lists.",
    caller_action="Use a method that the header Allow lists.",
    operator_action="None: the caller's request is at fault.",
)

REQUEST_REFUSED = ErrorCode(
    code="err:control:request:refused",
    status=400,
    source=Source.DOWNSTREAM,
    retryable=False,
    public="The request cannot be understood.",
    conventional_type="invalid_request_error",
    conventional_code="bad_request",
    cause="The request breaks a rule of HTTP that has no code of its own here.",
    caller_action="Correct the request; the status says in which way it is wrong.",
    operator_action="None: the caller's request is at fault.",
)

BODY_TOO_LARGE = ErrorCode(
    code="err:control:request:body_too_large",
    status=413,
    source=Source.DOWNSTREAM,
    retryable=False,
    public="The body is larger than 1 MiB.",
    conventional_type="invalid_request_error",
    conventional_code="request_too_large",
    cause="The admin API reads at most 1 MiB of a body.",
    caller_action="Send less; lists of aliases, networks and labels have bounds far below that.",
    operator_action="None: the caller's request is at fault.",
)

IF_MATCH_INVALID = ErrorCode(
    code="err:control:request:if_match_invalid",
    status=400,
    source=Source.DOWNSTREAM,
    retryable=False,
    public="The header If-Match cannot be read.",
    conventional_type="invalid_request_error",
    conventional_code="invalid_if_match",
    cause='`If-Match` is neither `*` nor one `ETag` of ours, e.g. `"3"`.',
    caller_action="Send the `ETag` of the object as it was answered, or leave the header out.",
    operator_action="None: the caller's request is at fault.",
)

KEY_HASHES_INVALID = ErrorCode(
    code="err:control:node:key_hashes_invalid",
    status=400,
    source=Source.DOWNSTREAM,
    retryable=False,
    public="The report of key hashes cannot be read.",
    conventional_type="invalid_request_error",
    conventional_code="invalid_report",
    cause="It is not the MessagePack that this version expects, or has too many keys.",
    caller_action="Send what an agent of this version sends, at most 500 keys at a time.",
    operator_action="Run control plane and nodes of the same version.",
)

NODE_REQUEST_INVALID = ErrorCode(
    code="err:control:node:request_invalid",
    status=400,
    source=Source.DOWNSTREAM,
    retryable=False,
    public="What a node asks cannot be read.",
    conventional_type="invalid_request_error",
    conventional_code="invalid_node_request",
    cause="It is no MessagePack of the known form, or names no node.",
    caller_action="None: nodes do this by themselves.",
    operator_action="Run a node and a control plane of versions that go together.",
)

HOLDS_INVALID = ErrorCode(
    code="err:control:holds:invalid",
    status=400,
    source=Source.DOWNSTREAM,
    retryable=False,
    public="The request for holds cannot be read.",
    conventional_type="invalid_request_error",
    conventional_code="invalid_holds",
    cause="It is no MessagePack of the known form, or a figure or text in it is out of range.",
    caller_action="None: nodes do this by themselves.",
    operator_action="Run a node and a control plane of versions that go together.",
)

PEPPERS_DIFFER = ErrorCode(
    code="err:control:node:peppers_differ",
    status=409,
    source=Source.DOWNSTREAM,
    retryable=False,
    public="The node hashes keys under another pepper than the control plane.",
    conventional_type="invalid_request_error",
    conventional_code="peppers_differ",
    cause="The newest pepper in `secrets/` is not the same in both data folders, or not yet.",
    caller_action="None: the agent tries again with the next keys that are shown.",
    operator_action=(
        "Give nodes and control plane the same files, with the same numbers, and restart them; "
        "until then keys that are created, or moved, are refused on that node."
    ),
)

SIGNATURE_WRONG = ErrorCode(
    code="err:control:auth:signature_wrong",
    status=401,
    source=Source.DOWNSTREAM,
    retryable=False,
    public="This needs a signature by a known key.",
    conventional_type="authentication_error",
    conventional_code="invalid_signature",
    cause="A header of the signature is missing, names an unknown key, or does not fit the body.",
    caller_action="Sign the body as it is sent, with a current key.",
    operator_action=(
        "If GitHub changed its keys, fetch them into the file of `secret_scanning_keys`, and "
        "restart."
    ),
)

SCANNING_REPORT_INVALID = ErrorCode(
    code="err:control:request:scanning_report_invalid",
    status=400,
    source=Source.DOWNSTREAM,
    retryable=False,
    public="The report of found keys cannot be read.",
    conventional_type="invalid_request_error",
    conventional_code="invalid_report",
    cause="It is no JSON list of objects with `token` and `type`, or has over 1,000 of them.",
    caller_action="Send what GitHub's secret scanning sends.",
    operator_action="None, unless GitHub changed the form of its reports.",
)

SCANNING_KEYS_INVALID = ErrorCode(
    code="err:control:config:scanning_keys_invalid",
    status=500,
    source=Source.INTERNAL,
    retryable=False,
    public="The public keys of secret scanning cannot be used.",
    conventional_type="server_error",
    conventional_code="internal_error",
    cause="The file of `secret_scanning_keys` is missing, or not what GitHub publishes.",
    caller_action="None; the control plane does not start.",
    operator_action=(
        "Fetch https://api.github.com/meta/public_keys/secret_scanning into that file, or take the "
        "setting away."
    ),
)

BUG = ErrorCode(
    code="err:control:internal:bug",
    status=500,
    source=Source.INTERNAL,
    retryable=True,
    public="The control plane failed over this request.",
    conventional_type="server_error",
    conventional_code="internal_error",
    cause="A mistake in Penstock.",
    caller_action="Try once more; usage that was shipped is stored once however often it comes.",
    operator_action="Report the traceback that the control log has at this time.",
)


class AuthenticationError(PenstockError):
    """Nobody, or somebody else, asked.

    Args:
        error: `TOKEN_MISSING` or `TOKEN_WRONG`.
        challenge: Value of `WWW-Authenticate`: how to ask again.
    """

    def __init__(self, error: ErrorCode, challenge: str) -> None:
        """See the class."""
        super().__init__(error)
        self.challenge = challenge
