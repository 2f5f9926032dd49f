"""Compiles a configuration to the snapshot that nodes serve from.

Pure, apart from the resolver of secrets that it is given: the same file, secrets, version and
time give the same snapshot.
"""

from datetime import datetime
from pathlib import Path

from penstock.access.rules import key_mac
from penstock.catalog.errors import Finding, PlatformFileError
from penstock.catalog.model import Entry, PlatformFile, ResolveSecret
from penstock.catalog.rules import is_header_safe, parse_endpoint
from penstock.catalog.schemas import KeyItem, UpstreamItem
from penstock.contract.snapshot import (
    Alias,
    Choice,
    Deployment,
    Key,
    Route,
    Snapshot,
    Timeouts,
    Upstream,
)
from penstock.kit.secrets import SecretUnavailableError

SHORTEST_KEY_CHARS = 16


def compile_snapshot(
    platform: PlatformFile,
    *,
    version: int,
    created_at_ns: int,
    pepper: bytes,
    resolve_secret: ResolveSecret,
) -> Snapshot:
    """Return the snapshot of a configuration.

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
    organizations = {entry.item.name: entry.item.organization for entry in platform.projects}
    return Snapshot(
        version=version,
        created_at_ns=created_at_ns,
        keys=tuple(
            Key(
                id=key.id,
                mac=key_mac(pepper, secrets[key.id].encode()),
                organization=organizations[key.project],
                project=key.project,
                aliases=key.aliases,
                expires_at=_seconds(key.expires_at),
            )
            for key in (entry.item for entry in platform.keys)
        ),
        upstreams=tuple(_upstream(entry.item, platform.folder) for entry in platform.upstreams),
        deployments=tuple(Deployment(**entry.item.model_dump()) for entry in platform.routes),
        routes=tuple(
            Route(entry.item.name, (Choice(entry.item.name),)) for entry in platform.routes
        ),
        aliases=tuple(Alias(**entry.item.model_dump()) for entry in platform.aliases),
    )


def resolve_secrets(
    platform: PlatformFile, resolve_secret: ResolveSecret
) -> tuple[dict[str, str], list[Finding]]:
    """Return the secrets of all keys by key id, and what is wrong with secrets anywhere.

    Findings name references and never repeat a secret.
    """
    secrets: dict[str, str] = {}
    findings: list[Finding] = []
    owners: dict[str, Entry[KeyItem]] = {}
    for key in platform.keys:
        reference = anchor_reference(key.item.secret, platform.folder)
        secret = _resolve(reference, resolve_secret, key, "secret", findings)
        if secret is None:
            continue
        first = owners.setdefault(secret, key)
        if first is not key:
            problem = (
                f"is the same secret as that of {first.item.id}, so nobody can tell who calls; "
                "make another one"
            )
            findings.append(key.finding(("secret",), problem))
        elif len(secret) < SHORTEST_KEY_CHARS:
            problem = (
                f"has {len(secret)} characters and can be guessed; "
                f"use {SHORTEST_KEY_CHARS} or more, at random"
            )
            findings.append(key.finding(("secret",), problem))
        secrets[key.item.id] = secret
    for upstream in platform.upstreams:
        if upstream.item.credential is not None:
            reference = anchor_reference(upstream.item.credential, platform.folder)
            _resolve(reference, resolve_secret, upstream, "credential", findings)
    return secrets, findings


def anchor_reference(reference: str, folder: Path) -> str:
    """Return a secret reference that means the same from every working folder."""
    kind, _, where = reference.partition(":")
    return f"file:{folder / where}" if kind == "file" else reference


def _resolve(
    reference: str,
    resolve_secret: ResolveSecret,
    entry: Entry[KeyItem] | Entry[UpstreamItem],
    field: str,
    findings: list[Finding],
) -> str | None:
    try:
        secret = resolve_secret(reference)
    except SecretUnavailableError as error:
        remedy = "set it" if reference.startswith("env:") else "create it or correct the path"
        findings.append(entry.finding((field,), f"{error}; {remedy}"))
        return None
    if not is_header_safe(secret):
        problem = "holds characters that no header can carry; use visible ASCII without spaces"
        findings.append(entry.finding((field,), problem))
        return None
    return secret


def _upstream(item: UpstreamItem, folder: Path) -> Upstream:
    credential, ca_file = item.credential, item.tls_ca_file
    return Upstream(
        name=item.name,
        provider=item.provider,
        endpoints=tuple(map(parse_endpoint, item.endpoints)),
        credential=None if credential is None else anchor_reference(credential, folder),
        forward_headers=item.forward_headers,
        timeouts=Timeouts(**item.timeouts.model_dump()),
        max_connections=item.max_connections,
        tls_ca_file=None if ca_file is None else str(folder / ca_file),
    )


def _seconds(time: str | None) -> int | None:
    return None if time is None else int(datetime.fromisoformat(time).timestamp())
