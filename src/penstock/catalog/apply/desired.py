"""What a document says, in the form in which it is compared with the database. Pure."""

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from penstock.access.key_rules import normalize_scopes
from penstock.catalog import fields, schemas
from penstock.catalog.apply.model import NAMED_BY, Members, Ref, Wanted
from penstock.catalog.document import build_node
from penstock.catalog.errors import Finding
from penstock.catalog.model import Entry, PlatformFile, normalize
from penstock.catalog.platform_file import Examined, examine, read_sections
from penstock.catalog.written_rules import shorten_rules
from penstock.contract.snapshot import Timeouts
from penstock.kit.decimals import format_decimal, parse_decimal
from penstock.kit.moments import format_time, microseconds

_DEFAULT_TIMEOUTS = {name: getattr(Timeouts(), name) for name in Timeouts.__struct_fields__}


def read_sent(document: Mapping[str, Any]) -> Examined:
    """Return what was found in a document as it was sent: with secrets, and without lines."""
    root = build_node(document)
    file = read_sections(root, source="document", folder=Path("/"))
    return examine([file], schemas.SENT_SECTIONS)


def read_wanted(platform: PlatformFile) -> dict[Ref, Wanted]:
    """Return the objects that a document has."""
    return {
        Ref(section, _identity(section, entry.item)): Wanted(
            members=_members(section, entry.item),
            secret=getattr(entry.item, "secret", None),
            finding=entry.finding,
        )
        for section in schemas.SECTIONS
        for entry in getattr(platform, section)
    }


def find_repeated_secrets(platform: PlatformFile) -> Iterator[Finding]:
    """Yield the keys whose secret another key of the document has."""
    owners: dict[str, Entry[schemas.KeyItem]] = {}
    for key in platform.keys:
        secret = key.item.secret
        if secret is not None and owners.setdefault(secret, key) is not key:
            problem = (
                "is the secret of another key here, so nobody can tell who calls; make another"
            )
            yield key.finding(("secret",), problem)


def shorten_timeouts(timeouts: dict[str, int]) -> dict[str, int]:
    """Return the time limits that differ from the defaults, sorted by name."""
    return {
        name: limit
        for name, limit in sorted(timeouts.items())
        if limit != _DEFAULT_TIMEOUTS.get(name)
    }


def _identity(section: str, item: schemas.Item) -> tuple[str | None, ...]:
    values = (getattr(item, name) for name in NAMED_BY[section])
    return tuple(None if value is None else normalize(value) for value in values)


def _members(section: str, item: schemas.Item) -> Members:
    members = item.model_dump(mode="json", exclude={*NAMED_BY[section], "secret"})
    for name, change in _FORMS.get(section, {}).items():
        if members[name] is not None:
            members[name] = change(members[name])
    return members


def _sorted(texts: list[str]) -> list[str]:
    return sorted({normalize(text) for text in texts})


def _time(text: str) -> str:
    return format_time(microseconds(datetime.fromisoformat(text)) or 0)


def _amount(text: str) -> str:
    amount = parse_decimal(text, fields.AMOUNT_PLACES)
    return text if amount is None else format_decimal(amount, fields.AMOUNT_PLACES)


_FORMS: dict[str, dict[str, Callable[[Any], Any]]] = {
    "organizations": {"allowed_data_classes": _sorted, "allowed_regions": _sorted},
    "projects": {"allowed_data_classes": _sorted, "allowed_regions": _sorted},
    "service_accounts": {"project": normalize},
    "keys": {
        "scopes": normalize_scopes,
        "aliases": _sorted,
        "expires_at": _time,
        "service_account": normalize,
    },
    "upstreams": {"timeouts": shorten_timeouts},
    "plans": {"rules": shorten_rules},
    "limits": {"rules": shorten_rules},
    "budgets": {"amount": _amount},
}
"""How members are written in the database, where that differs: sorted, or in one form."""
