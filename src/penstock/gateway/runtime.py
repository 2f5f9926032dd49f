"""What a worker serves from: the snapshot, indexed for look-ups by what requests carry."""

import re
import ssl

import msgspec

from penstock.contract.snapshot import Endpoint, Route, Snapshot, Timeouts, Upstream
from penstock.kit.secrets import SecretUnavailableError, resolve_secret

_encode = msgspec.json.Encoder().encode
_TOKEN = re.compile(r"[!-~]+")
"""What can stand in a header line and nowhere else."""


class Principal(msgspec.Struct, frozen=True):
    """Whoever is making a request."""

    key_id: str
    organization: str
    project: str
    aliases: frozenset[str] | None
    """What it may use; everything when None."""
    expires_at: int | None


class ServedUpstream(msgspec.Struct, frozen=True):
    """An upstream ready to be used."""

    name: str
    endpoints: tuple[Endpoint, ...]
    authorization: bytes
    """Header line with the credential, ending in CRLF, or nothing."""
    forward_names: frozenset[bytes]
    forward_prefixes: tuple[bytes, ...]
    timeouts: Timeouts
    max_connections: int
    tls: ssl.SSLContext | None
    settings: Upstream


class Target(msgspec.Struct, frozen=True):
    """Where an alias leads."""

    alias: str
    route: Route
    upstream: ServedUpstream
    model: msgspec.Raw
    """The upstream's own name of the model, as JSON."""


class Runtime(msgspec.Struct, frozen=True):
    """One snapshot, indexed."""

    version: int
    created_s: int
    pepper: bytes
    principals: dict[bytes, Principal]
    """By the keyed hash of the key."""
    known: dict[bytes, Principal]
    """Keys that were found already, by plain SHA-256 (they are 190 random bits): the keyed hash
    costs five times as much. As many as there are keys at most; gone with the snapshot."""
    targets: dict[str, Target]
    """By alias."""
    targets_by_json: dict[bytes, Target]
    """By alias as JSON writes it without escapes: spares the decoding of `model`."""
    forward_names: frozenset[bytes]
    forward_prefixes: tuple[bytes, ...]
    """Request headers that some upstream wants passed on."""


def build_runtime(snapshot: Snapshot, pepper: bytes) -> Runtime:
    """Index a snapshot.

    Args:
        snapshot: Complete: every reference in it resolves.
        pepper: What the keys' hashes were made with.

    Raises:
        SecretUnavailableError: An upstream's credential cannot be read, or is no token.
        OSError: An upstream's CA file cannot be read.
        KeyError: A reference inside the snapshot leads nowhere.
    """
    upstreams = {upstream.name: _serve(upstream) for upstream in snapshot.upstreams}
    routes = {route.name: route for route in snapshot.routes}
    targets = {}
    for alias in snapshot.aliases:
        route = routes[alias.route]
        model = msgspec.Raw(_encode(route.model))
        targets[alias.name] = Target(alias.name, route, upstreams[route.upstream], model)
    served = upstreams.values()
    return Runtime(
        version=snapshot.version,
        created_s=snapshot.created_at_ns // 1_000_000_000,
        pepper=pepper,
        principals={
            key.mac: Principal(
                key.id,
                key.organization,
                key.project,
                None if key.aliases is None else frozenset(key.aliases),
                key.expires_at,
            )
            for key in snapshot.keys
        },
        known={},
        targets=targets,
        targets_by_json={_encode(name): target for name, target in targets.items()},
        forward_names=frozenset().union(*(upstream.forward_names for upstream in served)),
        forward_prefixes=tuple(
            sorted({prefix for upstream in served for prefix in upstream.forward_prefixes})
        ),
    )


def _serve(upstream: Upstream) -> ServedUpstream:
    authorization = b""
    if upstream.credential is not None:
        secret = resolve_secret(upstream.credential)
        if _TOKEN.fullmatch(secret) is None:
            message = f"the secret {upstream.credential} is no token: it must be one word of ASCII"
            raise SecretUnavailableError(message)
        authorization = b"authorization: Bearer " + secret.encode("ascii") + b"\r\n"
    tls = None
    if any(endpoint.scheme == "https" for endpoint in upstream.endpoints):
        tls = ssl.create_default_context(cafile=upstream.tls_ca_file)
        tls.set_alpn_protocols(["http/1.1"])
    patterns = [name.lower().encode("ascii") for name in upstream.forward_headers]
    return ServedUpstream(
        name=upstream.name,
        endpoints=upstream.endpoints,
        authorization=authorization,
        forward_names=frozenset(name for name in patterns if not name.endswith(b"*")),
        forward_prefixes=tuple(name[:-1] for name in patterns if name.endswith(b"*")),
        timeouts=upstream.timeouts,
        max_connections=upstream.max_connections,
        tls=tls,
        settings=upstream,
    )
