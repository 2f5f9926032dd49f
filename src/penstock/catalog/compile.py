"""Compiles a configuration to the snapshot that a node without a control plane serves from.

Pure, apart from the resolver of secrets that it is given: the same file, secrets, version and
time give the same snapshot.
"""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from penstock.access.key_rules import allowed_scopes
from penstock.access.rules import key_mac
from penstock.catalog.errors import Finding, PlatformFileError
from penstock.catalog.fields import check_key_secret, check_secret
from penstock.catalog.model import Entry, PlatformFile, ResolveSecret
from penstock.catalog.rules import REFERENCE, list_endpoints
from penstock.catalog.schemas import CredentialItem, DeploymentItem, KeyItem, UpstreamItem
from penstock.contract.snapshot import (
    Alias,
    Choice,
    Deployment,
    Grant,
    Key,
    OwnedPolicy,
    Policy,
    Route,
    Snapshot,
    Timeouts,
    Upstream,
)
from penstock.kit.secrets import SecretUnavailableError
from penstock.tenancy.labels import join_labels

_REMEDY = "take it out, or give the file to a control plane with `penstock apply`"
MAX_OWNER_BYTES = 190
"""Of the name of an organization or project in UTF-8: a node finds records by names."""
_NEEDS_CONTROL = f"is nothing that a node without a control plane can use; {_REMEDY}"


def find_unsupported(platform: PlatformFile) -> Iterator[Finding]:
    """Yield what only a control plane can use: a node that serves from the file refuses it."""
    for organization in platform.organizations:
        yield from _check_length(organization, organization.item.name)
    for project in platform.projects:
        yield from _check_length(project, project.item.name)
    for owned in (
        *platform.members,
        *platform.service_accounts,
        *platform.plans,
        *platform.limits,
        *platform.budgets,
    ):
        yield owned.finding((), _NEEDS_CONTROL)
    for credential in platform.credentials:
        yield from _check_members(credential, "organization")
    for key in platform.keys:
        yield from _check_members(key, "rotation", "service_account")


def find_unused(platform: PlatformFile) -> Iterator[Finding]:
    """Yield what is valid and does nothing as it stands."""
    silent = {each.item.name for each in platform.upstreams if each.item.kv_events is None}
    for entry in platform.deployments:
        if entry.item.tokenizer is not None and entry.item.upstream in silent:
            problem = (
                "does nothing, since no node hears of its upstream's KV caches; "
                "say in the upstream's kv_events where its engines tell of them, or remove it"
            )
            yield entry.finding(("tokenizer",), problem)


def _check_length(owner: Entry[Any], name: str) -> Iterator[Finding]:
    if len(name.encode()) > MAX_OWNER_BYTES:
        problem = (
            f"is longer than {MAX_OWNER_BYTES} bytes, which a node cannot look up by itself; "
            "shorten it"
        )
        yield owner.finding(("name",), problem)


def _check_members(
    entry: Entry[KeyItem] | Entry[CredentialItem], *needless: str
) -> Iterator[Finding]:
    for field in needless:
        if getattr(entry.item, field) is not None:
            yield entry.finding((field,), _NEEDS_CONTROL)
    if entry.item.secret is None:
        yield entry.finding((), f"has no secret, and nobody else knows it; {_REMEDY}")


def compile_snapshot(
    platform: PlatformFile,
    *,
    version: int,
    created_at_ns: int,
    pepper: bytes,
    resolve_secret: ResolveSecret,
) -> Snapshot:
    """Return the snapshot of a configuration in which `find_unsupported` finds nothing.

    Args:
        platform: What `platform_file.parse` returned.
        version: The snapshot's version, larger than that of the one it replaces.
        created_at_ns: Nanoseconds since the Unix epoch.
        pepper: Secret under which keys are hashed; the workers have the same.
        resolve_secret: Returns what a reference names. It is asked for every key and every
            upstream credential, with absolute paths.

    Raises:
        PlatformFileError: Secrets cannot be read, are too short or the same; all of them.
    """
    secrets, findings = resolve_secrets(platform, resolve_secret)
    if findings:
        raise PlatformFileError(findings)
    credentials = {
        entry.item.name: anchor_reference(entry.item.secret or "", entry.written.folder)
        for entry in platform.credentials
    }
    upstreams = [entry for entry in platform.upstreams if not entry.item.is_disabled]
    return Snapshot(
        version=version,
        created_at_ns=created_at_ns,
        keys=tuple(
            _key(entry.item, key_mac(pepper, secrets["keys", index].encode()))
            for index, entry in enumerate(platform.keys)
        ),
        upstreams=tuple(_upstream(entry, credentials) for entry in upstreams),
        deployments=tuple(
            _deployment(entry, credentials)
            for entry in platform.deployments
            if not entry.item.is_disabled
        ),
        routes=tuple(
            Route(
                item.name,
                tuple(Choice(choice.deployment, choice.weight) for choice in item.deployments),
                item.fallback,
            )
            for item in (entry.item for entry in platform.routes)
        ),
        aliases=tuple(Alias(**entry.item.model_dump()) for entry in platform.aliases),
        grants=tuple(Grant(**entry.item.model_dump()) for entry in platform.grants),
        policies=tuple(_policies(platform)),
    )


def resolve_secrets(
    platform: PlatformFile, resolve_secret: ResolveSecret, *, are_for_nodes: bool = True
) -> tuple[dict[tuple[str, int], str], list[Finding]]:
    """Return the secrets of keys and credentials, and what is wrong with secrets anywhere.

    Findings name references and never repeat a secret.

    Args:
        platform: Says where secrets are.
        resolve_secret: Returns what a reference names.
        are_for_nodes: Look at the references of upstreams, too, which nodes follow.

    Returns:
        The secrets by section and place in the section, of those that have one.
    """
    secrets: dict[tuple[str, int], str] = {}
    findings: list[Finding] = []
    owners: dict[str, str] = {}
    for index, key in enumerate(platform.keys):
        secret = _resolve(key, "secret", resolve_secret, findings)
        if secret is not None:
            secrets["keys", index] = secret
            findings += _check_key(key, secret, owners)
    for index, credential in enumerate(platform.credentials):
        secret = _resolve(credential, "secret", resolve_secret, findings)
        if secret is not None:
            secrets["credentials", index] = secret
    for upstream in platform.upstreams if are_for_nodes else ():
        if is_reference(upstream.item.credential):
            _resolve(upstream, "credential", resolve_secret, findings)
    return secrets, findings


def _resolve(
    entry: Entry[Any], field: str, resolve_secret: ResolveSecret, findings: list[Finding]
) -> str | None:
    reference: str | None = getattr(entry.item, field)
    if reference is None:
        return None
    try:
        secret = resolve_secret(anchor_reference(reference, entry.written.folder))
    except SecretUnavailableError as error:
        remedy = "set it" if reference.startswith("env:") else "create it or correct the path"
        findings.append(entry.finding((field,), f"{error}; {remedy}"))
        return None
    try:
        return check_secret(secret)
    except ValueError as error:
        findings.append(entry.finding((field,), str(error)))
        return None


def _check_key(key: Entry[KeyItem], secret: str, owners: dict[str, str]) -> Iterator[Finding]:
    """Yield what is wrong with a key's secret; `owners` says whose each one is."""
    if secret in owners:
        problem = (
            f"is the same secret as that of {owners[secret]}, so nobody can tell who calls; "
            "make another one"
        )
        yield key.finding(("secret",), problem)
        return
    owners[secret] = key.item.name
    try:
        check_key_secret(secret)
    except ValueError as error:
        yield key.finding(("secret",), str(error))


def is_reference(credential: str | None) -> bool:
    """Tell whether the credential of an upstream says where a secret is, and not its name."""
    return credential is not None and REFERENCE.fullmatch(credential) is not None


def anchor_reference(reference: str, folder: Path) -> str:
    """Return a secret reference that means the same from every working folder."""
    kind, _, where = reference.partition(":")
    return f"file:{folder / where}" if kind == "file" else reference


def _key(item: KeyItem, mac: bytes) -> Key:
    return Key(
        id=item.name,
        mac=mac,
        organization=item.organization or "",
        project=item.project,
        aliases=item.aliases,
        expires_at=_seconds(item.expires_at),
        networks=item.networks,
        scopes=tuple(allowed_scopes(item.scopes, {item.role})),
        labels=tuple(join_labels(item.labels)),
    )


def _upstream(entry: Entry[UpstreamItem], credentials: dict[str, str]) -> Upstream:
    item, folder = entry.item, entry.written.folder
    credential, ca_file = item.credential, item.tls_ca_file
    if credential is not None:
        credential = credentials.get(credential) or anchor_reference(credential, folder)
    return Upstream(
        name=item.name,
        provider=item.provider,
        endpoints=list_endpoints(item.endpoints),
        credential=credential,
        forward_headers=item.forward_headers,
        timeouts=Timeouts(**item.timeouts.model_dump()),
        max_connections=item.max_connections,
        tls_ca_file=None if ca_file is None else str(folder / ca_file),
        region=item.region,
        data_class=item.data_class,
        takes_priority=item.takes_priority,
        kv_events=item.kv_events,
        discover=item.discover,
    )


def _deployment(entry: Entry[DeploymentItem], credentials: dict[str, str]) -> Deployment:
    item, folder = entry.item, entry.written.folder
    return Deployment(
        **{
            **item.model_dump(exclude={"is_disabled"}),
            "credential": credentials.get(item.credential or ""),
            "tokenizer": None if item.tokenizer is None else str(folder / item.tokenizer),
        }
    )


def _policies(platform: PlatformFile) -> Iterator[OwnedPolicy]:
    for organization in (entry.item for entry in platform.organizations):
        policy = Policy(organization.allowed_data_classes, organization.allowed_regions)
        if policy != Policy():
            yield OwnedPolicy(policy, organization.name)
    for project in (entry.item for entry in platform.projects):
        policy = Policy(project.allowed_data_classes, project.allowed_regions)
        if policy != Policy():
            yield OwnedPolicy(policy, project.organization, project.name)


def _seconds(time: str | None) -> int | None:
    return None if time is None else int(datetime.fromisoformat(time).timestamp())
