"""What stands against applying a document, as far as it can be known before anything is changed."""

import hmac
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from penstock.access import service as access
from penstock.access.authorization import ADMIN_API_SCOPES
from penstock.access.key_rules import is_live, match_secret
from penstock.access.rules import find_key_id
from penstock.catalog.apply.desired import find_repeated_secrets
from penstock.catalog.apply.diff import missing_secrets
from penstock.catalog.apply.kind import Hands
from penstock.catalog.apply.model import Ref, Wanted
from penstock.catalog.apply.reading import Reader
from penstock.catalog.credentials import service as credentials
from penstock.catalog.credentials.errors import CredentialUnreadableError
from penstock.catalog.errors import Finding, quoted
from penstock.catalog.platform_file import Examined
from penstock.catalog.references import (
    Identity,
    Reference,
    find_dangling,
    identify,
    tell_dangling,
)
from penstock.storage.sessions import ReadSession

_LOOKED_UP = {scope.value for scope in ADMIN_API_SCOPES}
"""Scopes of keys that the control plane finds by the id inside their secrets."""
_CHUNK = 500


def mentioned(examined: Examined) -> Iterator[Ref]:
    """Yield the objects that a document refers to and does not have."""
    for reference in examined.dangling:
        yield Ref(*reference.target)
        if reference.needs is not None:
            yield Ref(*reference.needs)


async def find_faults(
    session: ReadSession, examined: Examined, wanted: Mapping[Ref, Wanted], reader: Reader
) -> list[Finding]:
    """Return everything that is wrong with a document, seen together with what there is.

    Args:
        session: Where to look further.
        examined: The document.
        wanted: The objects that it has.
        reader: Has read these objects, and those that it refers to.
    """
    return [
        *examined.findings,
        *tell_dangling(_list_dangling(examined, reader), examined.names),
        *find_repeated_secrets(examined.platform),
        *_check_members(wanted, reader),
        *await _check_keys(session, wanted, reader),
    ]


async def find_renewed(hands: Hands, wanted: Mapping[Ref, Wanted], reader: Reader) -> set[Ref]:
    """Return the objects whose secret is another in the document than in the database."""
    renewed = set()
    there = {
        ref: reader.names.id(ref.section, *ref.identity)
        for ref, one in wanted.items()
        if one.secret is not None and ref in reader.members
    }
    keys = {object_id: ref for ref, object_id in there.items() if ref.section == "keys"}
    async for key_id, record in _records(hands.session, list(keys)):
        secret = wanted[keys[key_id]].secret or ""
        live = [one for one in record.secrets if is_live(one, hands.actor.at_us)]
        if match_secret(live, hands.peppers.macs(secret)) is None:
            renewed.add(keys[key_id])
    for ref, object_id in there.items():
        if ref.section == "credentials" and not await _is_kept(hands, object_id, wanted[ref]):
            renewed.add(ref)
    return renewed


async def _records(session: ReadSession, key_ids: Sequence[str]) -> Any:
    for start in range(0, len(key_ids), _CHUNK):
        found = await access.find_records(session, key_ids[start : start + _CHUNK])
        for key_id, record in found.items():
            yield key_id, record


async def _is_kept(hands: Hands, credential_id: str, wanted: Wanted) -> bool:
    """Tell whether a credential is what the document says."""
    try:
        kept = await credentials.read_secret(hands.session, hands.data_keys, credential_id)
    except CredentialUnreadableError:
        return False
    return hmac.compare_digest(kept.reveal(), (wanted.secret or "").encode())


def _list_dangling(examined: Examined, reader: Reader) -> list[Reference]:
    def is_there(target: tuple[str, Identity]) -> bool:
        section, identity = target
        is_kept = reader.names.find_id(section, *identity) is not None
        return is_kept or examined.names.has(target)

    dangling = find_dangling(examined.dangling, is_there)
    return [one for one in dangling if not _is_kept_alias(one, examined, reader)]


def _is_kept_alias(reference: Reference, examined: Examined, reader: Reader) -> bool:
    """Tell whether a key or a rule names an alias that is gone, and did so before: it may stay."""
    section = str(reference.written.path[0])
    if reference.section != "aliases" or section not in {"keys", "plans", "limits", "budgets"}:
        return False
    identity = identify(section, reference.written, examined.names)
    if section == "budgets":
        return identity is not None and Ref(section, identity) in reader.members
    members = {} if identity is None else reader.members.get(Ref(section, identity), {})
    named = {rule.get("alias") for rule in members.get("rules", ())}
    return reference.identity[0] in named.union(members.get("aliases") or ())


def _check_members(wanted: Mapping[Ref, Wanted], reader: Reader) -> Iterator[Finding]:
    """Yield the members that would have to change and cannot, and the secrets that are missing."""
    for ref, one in wanted.items():
        before = reader.members.get(ref)
        for name in sorted(reader.kinds[ref.section].immutable):
            if before is not None and before[name] != one.members[name]:
                problem = (
                    f"is {quoted(str(before[name]))} and stays so as long as it is there; "
                    f"remove the {ref.kind}, or make another one"
                )
                yield one.finding((name,), problem)
    desired = {ref: one.members for ref, one in wanted.items()}
    given = [ref for ref, one in wanted.items() if one.secret is not None]
    for ref in missing_secrets(desired, reader.members, given):
        problem = "is not there yet and has no secret; add secret: env:NAME or file:PATH"
        yield wanted[ref].finding((), problem)


async def _check_keys(
    session: ReadSession, wanted: Mapping[Ref, Wanted], reader: Reader
) -> Iterable[Finding]:
    """Return the keys whose secrets cannot be theirs."""
    findings = []
    new_ids: dict[str, Wanted] = {}
    for ref, one in wanted.items():
        if ref.section != "keys" or one.secret is None:
            continue
        inside = find_key_id(one.secret)
        key_id = reader.names.find_id(ref.section, *ref.identity)
        if key_id is None and inside is not None:
            new_ids[inside] = one
        is_own = inside is not None and key_id in {None, inside}
        if not is_own and _LOOKED_UP & set(one.members["scopes"]):
            problem = (
                "does not hold the key's id, and opens inference only; take one that "
                "`penstock keys create` or `penstock keys rotate` made"
            )
            findings.append(one.finding(("secret",), problem))
    async for key_id, _ in _records(session, sorted(new_ids)):
        problem = "holds the id of another key, which may be revoked; make another one"
        findings.append(new_ids[key_id].finding(("secret",), problem))
    return findings
