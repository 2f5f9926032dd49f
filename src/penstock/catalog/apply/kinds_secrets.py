"""Keys and credentials: what has a secret."""

from datetime import datetime
from typing import Any

from penstock.access import rotation, service, store
from penstock.access.model import ApiKey, KeyChanges, NewKey
from penstock.access.tables import ApiKeys
from penstock.catalog.apply.kind import Hands, Kind, Mention, Names
from penstock.catalog.apply.model import Change, Members, Wanted
from penstock.catalog.credentials import service as credentials
from penstock.catalog.credentials import store as credential_store
from penstock.catalog.credentials.model import Credential, NewCredential
from penstock.catalog.references import Identity
from penstock.catalog.tables import Credentials
from penstock.kit.moments import format_time, microseconds

OF_A_MEMBER = "(a member)"
"""Stands for the owner of a key that belongs to a person: files do not manage such keys."""


def _place_of_key(names: Names, identity: Identity) -> dict[str, str] | None:
    owner, project, name = identity
    project_id = names.find_id("projects", owner, project)
    return None if project_id is None else {"project_id": project_id, "name": str(name)}


def _mentions_of_key(key: ApiKey) -> list[Mention]:
    account_id = key.service_account_id
    return [] if account_id is None else [("service_accounts", account_id)]


def _members_of_key(names: Names, key: ApiKey) -> Members:
    rotation_policy = None
    if key.rotation_interval_s is not None:
        rotation_policy = {
            "interval_s": key.rotation_interval_s,
            "grace_s": key.rotation_grace_s or 0,
        }
    account = names.name("service_accounts", key.service_account_id)
    return {
        "role": key.role,
        "scopes": key.scopes,
        "aliases": key.allowed_aliases,
        "networks": key.allowed_cidrs,
        "labels": key.labels,
        "expires_at": None if key.expires_at_us is None else format_time(key.expires_at_us),
        "rotation": rotation_policy,
        "service_account": account if key.member_id is None else OF_A_MEMBER,
    }


def _key_values(members: Members) -> KeyChanges:
    """Return members of a key as they are stored; only those that are given."""
    values: dict[str, Any] = {
        name: members[name] for name in ("role", "scopes", "labels") if name in members
    }
    renamed = {"aliases": "allowed_aliases", "networks": "allowed_cidrs"}
    values |= {stored: members[name] for name, stored in renamed.items() if name in members}
    if "expires_at" in members:
        text = members["expires_at"]
        moment = None if text is None else datetime.fromisoformat(text)
        values["expires_at_us"] = microseconds(moment)
    if "rotation" in members:
        policy = members["rotation"] or {}
        values["rotation_interval_s"] = policy.get("interval_s")
        values["rotation_grace_s"] = policy.get("grace_s")
    return values  # type: ignore[return-value]  # only names of its members are put in


async def _create_key(hands: Hands, names: Names, identity: Identity, wanted: Wanted) -> str:
    owner, project, name = identity
    account = wanted.members["service_account"]
    values: Any = _key_values(wanted.members)
    account_id = None if account is None else names.id("service_accounts", owner, account)
    created = await service.create_key(
        hands.session,
        hands.actor,
        hands.principal,
        hands.peppers,
        project_id=names.id("projects", owner, project),
        new=NewKey(name=str(name), service_account_id=account_id, **values),
        text=wanted.secret,
    )
    return created.key.id


async def _update_key(hands: Hands, _: Names, object_id: str, change: Change) -> None:
    members = {name: after for name, (_, after) in change.differences.items()}
    await service.update_key(
        hands.session, hands.actor, hands.principal, object_id, _key_values(members)
    )


async def _rotate_key(hands: Hands, object_id: str, wanted: Wanted) -> None:
    policy = wanted.members["rotation"] or {}
    await rotation.rotate_key(
        hands.session,
        hands.actor,
        hands.principal,
        hands.peppers,
        key_id=object_id,
        grace_s=policy.get("grace_s", 0),
        text=wanted.secret,
    )


async def _revoke_key(hands: Hands, object_id: str) -> None:
    reason = "no longer in the applied files"
    await service.revoke_key(hands.session, hands.actor, object_id, reason=reason)


def _place_of_credential(names: Names, identity: Identity) -> dict[str, str] | None:
    owner, name = identity
    if owner is not None and names.find_id("organizations", owner) is None:
        return None
    return {"name": str(name)}


def _identify_credential(names: Names, credential: Credential) -> Identity:
    return names.name("organizations", credential.organization_id), credential.name


def _members_of_credential(names: Names, credential: Credential) -> Members:
    return {
        "provider": credential.provider,
        "upstream": names.name("upstreams", credential.upstream_id),
    }


async def _create_credential(hands: Hands, names: Names, identity: Identity, wanted: Wanted) -> str:
    owner, name = identity
    upstream = wanted.members["upstream"]
    new = NewCredential(
        name=str(name),
        provider=wanted.members["provider"],
        secret=wanted.secret or "",
        organization_id=None if owner is None else names.id("organizations", owner),
        upstream_id=None if upstream is None else names.id("upstreams", upstream),
    )
    created = await credentials.create_credential(hands.session, hands.actor, hands.data_keys, new)
    return created.id


async def _set_credential(hands: Hands, object_id: str, wanted: Wanted) -> None:
    await credentials.update_credential(
        hands.session, hands.actor, hands.data_keys, object_id, {"secret": wanted.secret or ""}
    )


async def _delete_credential(hands: Hands, object_id: str) -> None:
    await credentials.delete_credential(hands.session, hands.actor, object_id)


KEYS = Kind(
    section="keys",
    objects=store.keys,
    table=ApiKeys,
    in_use=(ApiKeys.revoked_at.is_(None),),
    place=_place_of_key,
    owners=lambda key: [("projects", key.project_id)],
    identify=lambda names, key: (*names.identity("projects", key.project_id), key.name),
    mentions=_mentions_of_key,
    members=_members_of_key,
    create=_create_key,
    update=_update_key,
    rotate=_rotate_key,
    delete=_revoke_key,
    immutable=frozenset({"service_account"}),
)
CREDENTIALS = Kind(
    section="credentials",
    objects=credential_store.credentials,
    table=Credentials,
    place=_place_of_credential,
    owners=lambda one: (
        [] if one.organization_id is None else [("organizations", one.organization_id)]
    ),
    identify=_identify_credential,
    mentions=lambda one: [] if one.upstream_id is None else [("upstreams", one.upstream_id)],
    members=_members_of_credential,
    create=_create_credential,
    rotate=_set_credential,
    delete=_delete_credential,
    immutable=frozenset({"provider", "upstream"}),
)
