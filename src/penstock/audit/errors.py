"""What can go wrong with the audit log."""

from penstock.kit.errors import ErrorCode, Source

SIGNING_KEY_INVALID = ErrorCode(
    code="err:control:audit:signing_key_invalid",
    status=500,
    source=Source.INTERNAL,
    retryable=False,
    public="The key that signs the audit log cannot be used.",
    conventional_type="server_error",
    conventional_code="internal_error",
    cause="`secrets/audit_signing_key` was edited or cut off, or is a pattern and not random.",
    caller_action="None; the control plane does not start.",
    operator_action=(
        "Put the file back from a backup. With a new key, old checkpoints need the old public key "
        "to be verified."
    ),
)
