"""The types of penstock.yaml's fields; each says what is wrong and, behind a semicolon, the remedy.

What belongs to other rooms is checked by their rules, so that the file takes what they take.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field

from penstock.access import key_rules
from penstock.access.model import KeyScope
from penstock.catalog.discovery import parse_source
from penstock.catalog.errors import quoted, suggest
from penstock.catalog.kv_events import parse_kv_events
from penstock.catalog.rules import (
    MAX_TIMEOUT_MS,
    check_adapter_path,
    check_forward_header,
    check_model,
    check_name,
    check_path,
    check_provider,
    check_reference,
    is_header_safe,
    parse_endpoints,
)
from penstock.contract.limits import Enforcement, Metric
from penstock.kit.decimals import parse_decimal
from penstock.kit.errors import PenstockError
from penstock.kit.slugs import check_slug
from penstock.tenancy.model import Role
from penstock.tenancy.rules import (
    check_label,
    check_labels,
    normalize_email,
    normalize_name,
    normalize_subject,
)

AMOUNT_PLACES = 9
"""Decimals of amounts of money: nano-units."""

_CURRENCY = re.compile(r"[A-Z]{3}")

FORMAT = 1
"""The `version` of the file that is read here."""
SHORTEST_KEY_CHARS = 16
REFERENCE_SCHEMES = ("env:", "file:", "credential:")
"""What begins like these is a reference and no name of a credential."""

_Given = TypeVar("_Given")
_Kept = TypeVar("_Kept")


@contextmanager
def as_finding(remedy: str) -> Iterator[None]:
    """Turn the refusal of another room's rules into what findings say.

    Args:
        remedy: What to do about it.

    Raises:
        ValueError: What is wrong and the remedy.
    """
    try:
        yield
    except PenstockError as error:
        sentence = str(error).removesuffix(".")
        message = f"cannot be used: {sentence[:1].lower()}{sentence[1:]}; {remedy}"
        raise ValueError(message) from None


def _told(check: Callable[[_Given], _Kept], remedy: str) -> Callable[[_Given], _Kept]:
    """Return another room's check as one of ours."""

    def checked(value: _Given) -> _Kept:
        with as_finding(remedy):
            return check(value)

    return checked


def _check_version(number: int) -> int:
    if number != FORMAT:
        message = f"is a format that this Penstock does not read; write version: {FORMAT}"
        raise ValueError(message)
    return number


def _check_url(text: str) -> str:
    parse_endpoints(text)
    return text


def _check_source(text: str) -> str:
    parse_source(text)
    return text


def _check_time(text: str) -> str:
    try:
        moment = datetime.fromisoformat(text)
        is_complete = moment.tzinfo is not None and moment.timestamp() >= 0
    except (ValueError, OverflowError):
        is_complete = False
    if not is_complete:
        message = 'is no date and time with an offset; write e.g. "2030-01-31T00:00:00Z"'
        raise ValueError(message)
    return text


def _check_credential_name(text: str) -> str:
    if text.startswith(REFERENCE_SCHEMES):
        message = "begins like a reference to a secret; choose a name without env:, file: before it"
        raise ValueError(message)
    return str(_check_person_name(text))


def _check_credential(text: str) -> str:
    """Check a reference to a secret, or the name of a credential; it is not repeated."""
    return check_reference(text) if text.startswith(("env:", "file:")) else text


def check_secret(text: str) -> str:
    """Return a secret that a header can carry unchanged; it is not repeated.

    Raises:
        ValueError: What is wrong and the remedy.
    """
    if not is_header_safe(text):
        message = "holds characters that no header can carry; use visible ASCII without spaces"
        raise ValueError(message)
    return text


def check_key_secret(text: str) -> str:
    """Return the secret of a key unchanged; it is not repeated.

    Raises:
        ValueError: What is wrong and the remedy.
    """
    check_secret(text)
    if len(text) < SHORTEST_KEY_CHARS:
        message = (
            f"has {len(text)} characters and can be guessed; "
            f"use {SHORTEST_KEY_CHARS} or more, at random"
        )
        raise ValueError(message)
    return text


def _check_choice(text: str, kind: str, known: list[str]) -> str:
    if text not in known:
        message = f"no {kind} is named {quoted(text)}; {suggest(text, known, otherwise='none')}"
        raise ValueError(message)
    return text


def _check_role(text: str) -> str:
    return _check_choice(text, "role", list(Role))


def _check_scope(text: str) -> str:
    return _check_choice(text, "scope", list(KeyScope))


def _check_metric(text: str) -> str:
    return _check_choice(text, "metric", list(Metric))


def _check_enforcement(text: str) -> str:
    return _check_choice(text, "enforcement", list(Enforcement))


def _check_per(text: str) -> str:
    return _check_choice(text, "sharer", ["key", "member"])


def _check_currency(text: str) -> str:
    if not _CURRENCY.fullmatch(text):
        message = f"{quoted(text)} is no currency; use three capitals, e.g. EUR"
        raise ValueError(message)
    return text


def _check_amount(text: str) -> str:
    if not parse_decimal(text, AMOUNT_PLACES):
        message = (
            f"{quoted(text)} is no amount; write more than 0 in quotes, e.g. '0.05', with at most "
            f"{AMOUNT_PLACES} decimals"
        )
        raise ValueError(message)
    return text


def _check_period(text: str) -> str:
    return _check_choice(text, "period", ["day", "month", "once"])


def _check_when_away(text: str) -> str:
    return _check_choice(text, "choice", ["spend_held", "refuse"])


def _normalize_networks(networks: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(key_rules.normalize_cidrs(networks) or ())


def _as_text(value: Any) -> Any:
    return str(value) if type(value) is int else value


def _check_kv_ports(text: str) -> str:
    parse_kv_events(text)
    return text


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


_check_person_name = _told(normalize_name, "use 1 to 128 visible characters without space around")

AsTuple = BeforeValidator(_as_tuple)
Slug = Annotated[str, AfterValidator(check_slug)]
Name = Annotated[str, AfterValidator(check_name)]
FreeName = Annotated[str, AfterValidator(_check_person_name)]
"""1 to 128 visible characters of any script."""
Subject = Annotated[str, AfterValidator(_told(normalize_subject, "write the `sub` as it is"))]
Email = Annotated[str, AfterValidator(_told(normalize_email, "correct it or leave it out"))]
RoleName = Annotated[str, AfterValidator(_check_role)]
Scopes = Annotated[
    tuple[Annotated[str, AfterValidator(_check_scope)], ...], Field(min_length=1), AsTuple
]
Networks = Annotated[
    tuple[str, ...],
    AfterValidator(_told(_normalize_networks, "write e.g. 10.0.0.0/8")),
    AsTuple,
]
Label = Annotated[str, AfterValidator(_told(check_label, "correct it"))]
Labels = Annotated[dict[str, str], AfterValidator(_told(check_labels, "correct it"))]
Slugs = Annotated[tuple[Slug, ...], AsTuple]
ServedModel = Annotated[str, AfterValidator(check_model)]
AdapterPath = Annotated[str, AfterValidator(check_adapter_path)]
SecretReference = Annotated[str, AfterValidator(check_reference)]
Secret = Annotated[str, AfterValidator(check_secret)]
KeySecret = Annotated[str, AfterValidator(check_key_secret)]
CredentialName = Annotated[str, AfterValidator(_check_credential_name)]
CredentialOrReference = Annotated[str, AfterValidator(_check_credential)]
Url = Annotated[str, AfterValidator(_check_url)]
Source = Annotated[str, AfterValidator(_check_source)]
KvPorts = Annotated[str, BeforeValidator(_as_text), AfterValidator(_check_kv_ports)]
HeaderPattern = Annotated[str, AfterValidator(check_forward_header)]
FilePath = Annotated[str, AfterValidator(check_path)]
Time = Annotated[str, AfterValidator(_check_time)]
Milliseconds = Annotated[int, Field(ge=1, le=MAX_TIMEOUT_MS)]
MillisecondsOrNone = Annotated[int, Field(ge=0, le=MAX_TIMEOUT_MS)]
MetricName = Annotated[str, AfterValidator(_check_metric)]
EnforcementName = Annotated[str, AfterValidator(_check_enforcement)]
PerName = Annotated[str, AfterValidator(_check_per)]
Currency = Annotated[str, AfterValidator(_check_currency)]
Amount = Annotated[str, AfterValidator(_check_amount)]
PeriodName = Annotated[str, AfterValidator(_check_period)]
WhenAwayName = Annotated[str, AfterValidator(_check_when_away)]
Provider = Annotated[str, AfterValidator(check_provider)]
Version = Annotated[int, AfterValidator(_check_version)]
