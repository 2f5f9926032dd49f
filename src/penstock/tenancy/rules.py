"""Decisions about organizations and their parts: pure, no clock, no I/O."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from penstock.kit.errors import PenstockError
from penstock.kit.slugs import check_slug
from penstock.tenancy.errors import (
    EMAIL_INVALID,
    LABELS_INVALID,
    NAME_INVALID,
    POLICY_INVALID,
    ROLE_INVALID,
    STATUS_CONFLICT,
    SUBJECT_INVALID,
)
from penstock.tenancy.labels import find_label_fault, find_labels_fault
from penstock.tenancy.model import (
    ORGANIZATION_ROLES,
    PROJECT_ROLES,
    OwnerChanges,
    Role,
    Status,
)

MAX_NAME_CHARS = 128
MAX_SUBJECT_CHARS = 255
MAX_EMAIL_CHARS = 254
MAX_PLACES = 100
"""Data classes, and regions, that a policy allows."""

# Control, format (invisible, or turning the reading direction), surrogate, private, unassigned;
# line and paragraph separators.
_REFUSED_CATEGORIES = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
# One @, no white space, a dot behind it: more is for the server that delivers to it to say.
_EMAIL = re.compile(r"[^@\s]{1,64}@[^@\s]+\.[^@\s]+")

_NEXT_STATUS = {
    "suspend": (Status.ACTIVE, Status.SUSPENDED),
    "resume": (Status.SUSPENDED, Status.ACTIVE),
}


def normalize_name(name: str) -> str:
    """Return a name in its one form (NFC).

    Raises:
        PenstockError: `NAME_INVALID`: empty, longer than 128 characters, surrounded by space, or
            with a character that cannot be seen.
    """
    normal = unicodedata.normalize("NFC", name)
    fault = _find_fault(normal, MAX_NAME_CHARS)
    if fault is not None:
        raise PenstockError(NAME_INVALID, f"The name {fault}.")
    return normal


def normalize_subject(subject: str) -> str:
    """Return an identity provider's word for a person, unchanged.

    Raises:
        PenstockError: `SUBJECT_INVALID`.
    """
    fault = _find_fault(subject, MAX_SUBJECT_CHARS)
    if fault is not None:
        raise PenstockError(SUBJECT_INVALID, f"The subject {fault}.")
    return subject


def normalize_email(email: str | None) -> str | None:
    """Return an e-mail address in its one form: NFC, as it was otherwise.

    Raises:
        PenstockError: `EMAIL_INVALID`.
    """
    if email is None:
        return None
    normal = unicodedata.normalize("NFC", email)
    fault = _find_fault(normal, MAX_EMAIL_CHARS)
    if fault is None and not _EMAIL.fullmatch(normal):
        fault = "is not of the form name@host.example"
    if fault is not None:
        raise PenstockError(EMAIL_INVALID, f"The e-mail address {fault}.")
    return normal


def next_status(verb: str, status: str) -> str:
    """Return the status after `suspend` or `resume`; doing it again changes nothing.

    Raises:
        PenstockError: `STATUS_CONFLICT`: it is archived, or in a status that nobody knows.
    """
    before, after = _NEXT_STATUS[verb]
    if status not in {before, after}:
        raise PenstockError(STATUS_CONFLICT, f"It cannot {verb} while it is {status}.")
    return after


def check_role(role: str, project_id: str | None) -> Role:
    """Return the role, when it can be had in an organization, or in a project of it.

    Raises:
        PenstockError: `ROLE_INVALID`.
    """
    possible = ORGANIZATION_ROLES if project_id is None else PROJECT_ROLES
    if role not in possible:
        where = "an organization" if project_id is None else "a project"
        raise PenstockError(ROLE_INVALID, f"Roles of {where} are: {', '.join(possible)}.")
    return Role(role)


def check_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """Return labels sorted by name.

    Raises:
        PenstockError: `LABELS_INVALID`.
    """
    fault = find_labels_fault(labels)
    if fault is not None:
        raise PenstockError(LABELS_INVALID, fault)
    return dict(sorted(labels.items()))


def check_label(label: str) -> str:
    """Return a label that a rule may be for, NAME=VALUE.

    Raises:
        PenstockError: `LABELS_INVALID`.
    """
    fault = find_label_fault(label)
    if fault is not None:
        raise PenstockError(LABELS_INVALID, fault)
    return label


def require_active(status: str, what: str) -> None:
    """Check that something new can be put into an organization or project.

    Raises:
        PenstockError: `STATUS_CONFLICT`: it is suspended, archived, or nobody knows what.
    """
    if status != Status.ACTIVE:
        raise PenstockError(STATUS_CONFLICT, f"The {what} is {status}.")


def require_not_archived(status: str) -> None:
    """Check that an organization or project can still be changed.

    Raises:
        PenstockError: `STATUS_CONFLICT`.
    """
    if status == Status.ARCHIVED:
        raise PenstockError(STATUS_CONFLICT, "It is archived.")


def normalize_changes(changes: OwnerChanges) -> dict[str, Any]:
    """Return changes of an organization or project in their one form.

    Allowed data classes and regions are sorted and each there once; None, for all, stays None.

    Raises:
        PenstockError: `NAME_INVALID`; `POLICY_INVALID`: over 100, or one is no slug.
    """
    values: dict[str, Any] = dict(changes)
    if "name" in changes:
        values["name"] = normalize_name(changes["name"])
    for member in ("allowed_data_classes", "allowed_regions"):
        if values.get(member) is not None:
            values[member] = _normalize_places(values[member], member)
    return values


def _normalize_places(places: Sequence[str], member: str) -> list[str]:
    if len(places) > MAX_PLACES:
        raise PenstockError(POLICY_INVALID, f"`{member}` has more than {MAX_PLACES} names.")
    try:
        return sorted({check_slug(place) for place in places})
    except ValueError as error:
        raise PenstockError(POLICY_INVALID, f"One of `{member}` {error}.") from None


def _find_fault(text: str, max_chars: int) -> str | None:
    if not text:
        return "is empty"
    if len(text) > max_chars:
        return f"is longer than {max_chars} characters"
    for char in text:
        if unicodedata.category(char) in _REFUSED_CATEGORIES:
            return f"has the character U+{ord(char):04X}, which cannot be seen"
    if text != text.strip():
        return "begins or ends with space"
    return None
