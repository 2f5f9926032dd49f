"""One shape for everything that can go wrong.

Expected refusals are values (`Refusal`), not exceptions: the hot path returns them. Exceptions
(`PenstockError`) are for bugs, broken peers and the command line. Each room declares its codes in
its `errors.py`; `docs/reference/errors.md` is generated from the declarations.
"""

from dataclasses import dataclass
from enum import StrEnum


class Source(StrEnum):
    """Whose fault a failure is."""

    DOWNSTREAM = "downstream"
    UPSTREAM = "upstream"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorCode:
    """A declared failure: what the caller sees, and what each side can do about it."""

    code: str
    """`err:<plane>:<category>:<specific>`, stable for ever."""
    status: int
    """HTTP status that it is answered with."""
    source: Source
    """Whose fault it is."""
    retryable: bool
    """Whether the same request may succeed later without being changed."""
    public: str
    """What the caller is told; never holds a host name, a path or a secret."""
    conventional_type: str
    """`type` of the OpenAI error object."""
    conventional_code: str
    """`code` of the OpenAI error object, the one that SDK users switch on."""
    cause: str
    """Why it happens (documentation)."""
    caller_action: str
    """What the caller can do (documentation)."""
    operator_action: str
    """What the operator can do (documentation)."""


def declare_refusal(
    category: str,
    name: str,
    status: int,
    word: str,
    *,
    public: str,
    cause: str,
    caller_action: str,
) -> ErrorCode:
    """Return the code of something that the control plane does not do for its caller.

    Args:
        category: What it is about: mostly the room.
        name: Which of them.
        status: HTTP status, 4xx.
        word: `code` of the OpenAI error object.
        public: See `ErrorCode`, as the others.
        cause: Why it happens.
        caller_action: What the caller can do.
    """
    return ErrorCode(
        code=f"err:control:{category}:{name}",
        status=status,
        source=Source.DOWNSTREAM,
        retryable=False,
        public=public,
        conventional_type="invalid_request_error",
        conventional_code=word,
        cause=cause,
        caller_action=caller_action,
        operator_action="None: the caller's request is at fault.",
    )


@dataclass(frozen=True, slots=True)
class Refusal:
    """An expected refusal of one request, as a value."""

    error: ErrorCode
    """What went wrong."""
    detail: str = ""
    """Replaces `error.public` where a more exact sentence is known; safe to show."""
    param: str | None = None
    """The offending member of the request, if one is to blame."""
    retry_after_s: int | None = None
    """Seconds until a retry makes sense, if known."""
    reason: str = ""
    """Why, in a word of whoever refused it behind us, if it said one; safe to show."""

    @property
    def message(self) -> str:
        """The sentence for the caller."""
        return self.detail or self.error.public


class PenstockError(Exception):
    """Base of our exceptions.

    Args:
        error: The declared code.
        detail: What is wrong, where, and what to do, for the one who reads it; no secrets.
    """

    def __init__(self, error: ErrorCode, detail: str = "") -> None:
        """See the class."""
        super().__init__(detail or error.public)
        self.error = error
