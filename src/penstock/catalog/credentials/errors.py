"""What can go wrong with credentials of upstreams. No error holds any part of a secret."""

from penstock.kit.errors import ErrorCode, PenstockError, Source

CREDENTIAL_INVALID = ErrorCode(
    code="err:control:credential:invalid",
    status=400,
    source=Source.DOWNSTREAM,
    retryable=False,
    public="The credential cannot be sent to an upstream.",
    conventional_type="invalid_request_error",
    conventional_code="invalid_parameter",
    cause=(
        "The secret is empty, too long, or holds characters that no header can carry; or the "
        "provider is none, or another than the upstream's."
    ),
    caller_action=(
        "Send the token alone: visible ASCII, no spaces, at most 16384 characters; and the "
        "provider of the upstream that it is for."
    ),
    operator_action="None.",
)

CREDENTIAL_UNREADABLE = ErrorCode(
    code="err:control:credential:unreadable",
    status=500,
    source=Source.INTERNAL,
    retryable=False,
    public="The stored credential cannot be decrypted; it has to be set again.",
    conventional_type="server_error",
    conventional_code="credential_unreadable",
    cause=(
        "The record was altered, moved to another organization or provider, or restored without "
        "the key that it was encrypted with."
    ),
    caller_action="Set the credential again.",
    operator_action=(
        "If many credentials are concerned, restore the key file, or the version of the KEK that "
        "the message names. Look in the audit log for who changed the record."
    ),
)

UPSTREAM_TAKEN = ErrorCode(
    code="err:control:credential:upstream_taken",
    status=409,
    source=Source.DOWNSTREAM,
    retryable=False,
    public="The organization has a credential of its own for this upstream already.",
    conventional_type="invalid_request_error",
    conventional_code="upstream_taken",
    cause="For each upstream an organization has at most one credential of its own.",
    caller_action="Set the secret of the credential that is there, or delete it first.",
    operator_action="None: the caller's request is at fault.",
)

KEK_UNAVAILABLE = ErrorCode(
    code="err:control:credential:kek_unavailable",
    status=503,
    source=Source.INTERNAL,
    retryable=True,
    public="Credentials cannot be encrypted or decrypted at the moment; try again.",
    conventional_type="server_error",
    conventional_code="service_unavailable",
    cause=(
        "The keeper of the key-encryption key (file, Vault, AWS KMS) is away, sealed or throttled, "
        "denies permission, or its file can be read by others."
    ),
    caller_action="Repeat the same request after the time that Retry-After gives.",
    operator_action="Put right what the message names; nothing stored has to be changed.",
)


class CredentialInvalidError(PenstockError):
    """A credential was refused before it was stored."""

    def __init__(self, detail: str) -> None:
        """See the class; `detail` says what is wrong with it, without any part of it."""
        super().__init__(CREDENTIAL_INVALID, detail)


class CredentialUnreadableError(PenstockError):
    """A stored credential, or the data key that it needs, will never open again as it is."""

    def __init__(self, detail: str) -> None:
        """See the class; `detail` names the record."""
        super().__init__(CREDENTIAL_UNREADABLE, detail)


class KeysUnavailableError(PenstockError):
    """No data key can be opened now; whether the stored records are sound is not known."""

    def __init__(self, detail: str) -> None:
        """See the class; `detail` is the keeper's own sentence."""
        super().__init__(KEK_UNAVAILABLE, detail)


class KeysRefusedError(KeysUnavailableError):
    """The keeper lets nobody here use the KEK any more: what it opened shall end."""
