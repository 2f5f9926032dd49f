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
    cause="The database is locked by another process, full, away, read-only, damaged or replaced.",
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

OBJECT_UNKNOWN = ErrorCode(
    code="err:control:storage:object_unknown",
    status=404,
    source=Source.DOWNSTREAM,
    retryable=False,
    public="There is no such object.",
    conventional_type="invalid_request_error",
    conventional_code="not_found",
    cause="The id was never given out, belongs to another organization, or was archived.",
    caller_action="Compare the id with the listing; ids of another organization are never found.",
    operator_action="None: the caller's request is at fault.",
)

VERSION_CONFLICT = ErrorCode(
    code="err:control:storage:version_conflict",
    status=412,
    source=Source.DOWNSTREAM,
    retryable=False,
    public="The object was changed by somebody else meanwhile.",
    conventional_type="invalid_request_error",
    conventional_code="precondition_failed",
    cause="`If-Match` names another version than the one that is stored.",
    caller_action="Read the object again, decide anew, and send the change with its new `ETag`.",
    operator_action="None: the caller's request is at fault.",
)

PAGE_CURSOR_INVALID = ErrorCode(
    code="err:control:storage:cursor_invalid",
    status=400,
    source=Source.DOWNSTREAM,
    retryable=False,
    public="The cursor is not one that this listing gave out.",
    conventional_type="invalid_request_error",
    conventional_code="invalid_cursor",
    cause="`cursor` was made up, cut off or decoded once too often.",
    caller_action="Pass `next_cursor` of the last answer unchanged, or leave `cursor` out.",
    operator_action="None.",
)


class RowConflictError(Exception):
    """A rule of a table stands against a row; services say which, as an error of their own."""


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
