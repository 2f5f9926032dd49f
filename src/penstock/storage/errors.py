"""What can go wrong with the database as a whole."""

from penstock.kit.errors import ErrorCode, PenstockError, Source

UNAVAILABLE = ErrorCode(
    code="err:control:storage:unavailable",
    status=503,
    source=Source.INTERNAL,
    retryable=True,
    public="The database does not answer at the moment; try again.",
    conventional_type="server_error",
    conventional_code="service_unavailable",
    cause="The database is locked by another process, full, away, damaged or was replaced.",
    caller_action="Repeat the same request after the time that Retry-After gives.",
    operator_action=(
        "Read the warning of penstock.storage in the control log: it has the database's own words. "
        "Free disk space, end the process that holds the lock, or put the file back and restart."
    ),
)

SCHEMA_UNKNOWN = ErrorCode(
    code="err:control:storage:schema_unknown",
    status=500,
    source=Source.INTERNAL,
    retryable=False,
    public="The database was written by a newer version.",
    conventional_type="server_error",
    conventional_code="internal_error",
    cause="The database has a migration that this version does not know: it was downgraded.",
    caller_action="None; the control plane does not start.",
    operator_action="Start the newer version again, or restore the backup from before its start.",
)


class DatabaseUnavailableError(PenstockError):
    """The database did not do what was asked, and nothing of it was done.

    The one exception: when it failed during a commit, the commit may have happened. Whoever
    repeats a write must therefore make it idempotent.
    """

    def __init__(self, detail: str = "") -> None:
        """See the class."""
        super().__init__(UNAVAILABLE, detail)


class SchemaUnknownError(PenstockError):
    """The database has a schema from the future; it was left untouched."""

    def __init__(self) -> None:
        """See the class."""
        super().__init__(SCHEMA_UNKNOWN)
