"""How the worker declares in which ways it can fail a request: forms to fill in."""

from penstock.kit.errors import ErrorCode, Source

_INVALID = "invalid_request_error"
_SERVER = "server_error"


def downstream(  # noqa: PLR0913 - a form to fill in, every field by name
    code: str,
    status: int,
    public: str,
    *,
    cause: str,
    fix: str,
    conventional: str | None = None,
    conventional_type: str = _INVALID,
    retryable: bool = False,
    operator: str = "None: the caller's request is at fault.",
) -> ErrorCode:
    """Return the code of what is the caller's fault.

    Args:
        code: What follows `err:gateway:`.
        status: HTTP status, 4xx.
        public: What the caller is told.
        cause: Why it happens.
        fix: What the caller can do.
        conventional: `code` of the OpenAI error object; the last word of ours when None.
        conventional_type: Its `type`.
        retryable: Whether the same request may succeed later.
        operator: What the operator can do.
    """
    return ErrorCode(
        code=f"err:gateway:{code}",
        status=status,
        source=Source.DOWNSTREAM,
        retryable=retryable,
        public=public,
        conventional_type=conventional_type,
        conventional_code=conventional or code.rpartition(":")[2],
        cause=cause,
        caller_action=fix,
        operator_action=operator,
    )


def infrastructure(
    code: str,
    status: int,
    public: str,
    *,
    cause: str,
    operator: str,
    source: Source = Source.UPSTREAM,
    retryable: bool = True,
    fix: str = "Retry after the time in Retry-After; report the x-request-id when it goes on.",
) -> ErrorCode:
    """Return the code of what its caller can only wait for.

    Args:
        code: What follows `err:gateway:`.
        status: HTTP status.
        public: What the caller is told.
        cause: Why it happens.
        operator: What the operator can do.
        source: Whose fault it is: the engine's, or ours.
        retryable: Whether the same request may succeed later.
        fix: What the caller can do.
    """
    return ErrorCode(
        code=f"err:gateway:{code}",
        status=status,
        source=source,
        retryable=retryable,
        public=public,
        conventional_type=_SERVER,
        conventional_code=code.rpartition(":")[2],
        cause=cause,
        caller_action=fix,
        operator_action=operator,
    )
