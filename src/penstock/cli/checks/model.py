"""What a check says."""

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How a check came out."""

    OK = "ok"
    NOTE = "note"
    """Works, but could be better."""
    FAILED = "failed"
    """Something does not, or will not, work."""
    SKIPPED = "skipped"
    """Could not be checked, e.g. because nothing runs."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check."""

    check: str
    """What was looked at."""
    verdict: Verdict
    detail: str
    """What was found, with figures."""
    remedy: str = ""
    """What to do, unless all is well."""
