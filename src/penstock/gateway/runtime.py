"""What a worker serves from: the snapshot, looked up by what requests carry."""

import logging
import re
import ssl
from collections.abc import Iterable
from hashlib import sha256
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Protocol

import msgspec

from penstock.access.rules import key_mac
from penstock.contract.snapshot import Alias, Deployment, Endpoint, Key, Route, Timeouts, Upstream
from penstock.contract.snapshot_store import Meta
from penstock.gateway.limits import KNOWN_KEYS, KNOWN_TARGETS
from penstock.kit.secrets import SecretUnavailableError, resolve_secret

log = logging.getLogger(__name__)

_encode = msgspec.json.Encoder().encode
_decode_str = msgspec.json.Decoder(str).decode
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
    networks: tuple[IPv4Network | IPv6Network, ...] | None = None
    """Where it may be used from; anywhere when None."""
    scopes: frozenset[str] = frozenset({"inference", "models:read"})
    secret_id: str = ""
    """Which of the key's secrets was shown; "" when that is not known."""


class ServedUpstream(msgspec.Struct, frozen=True):
    """An upstream ready to be used."""

    name: str
    version: int
    """Of the snapshot that it was read from."""
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
    deployment: Deployment
    upstream: ServedUpstream
    model: msgspec.Raw
    """The upstream's own name of the model, as JSON."""


class Records(Protocol):
    """Where the snapshot's records are: `contract.snapshot_store.SnapshotReader`."""

    meta: Meta

    def find_key(self, mac: bytes) -> Key | None:
        """Return a usable API key."""

    def find_alias(self, name: str) -> Alias | None:
        """Return an alias."""

    def find_route(self, name: str) -> Route | None:
        """Return a route."""

    def find_deployment(self, name: str) -> Deployment | None:
        """Return a deployment."""

    def find_upstream(self, name: str) -> Upstream | None:
        """Return an upstream."""

    def list_upstreams(self) -> list[Upstream]:
        """Return all upstreams."""

    def list_alias_names(self) -> list[str]:
        """Return the names of all aliases."""


class Runtime:
    """One version of the snapshot: its records, read when a request first needs them.

    A record that cannot be read is as good as absent: it harms nothing beside it.

    Args:
        records: Where they are; must not change under a runtime: a new version is a new one.
        pepper: What the keys' hashes were made with.
    """

    def __init__(self, records: Records, pepper: bytes) -> None:
        """See the class."""
        self._records = records
        self._pepper = pepper
        self.version = records.meta.version
        self.created_s = records.meta.created_at_ns // 1_000_000_000
        self._known: dict[bytes, Principal] = {}
        """Keys that were found, by plain SHA-256 (they are 190 random bits): the keyed hash
        costs five times as much. Gone with the version."""
        self._targets: dict[bytes, Target] = {}
        """By alias as JSON writes it: spares the decoding of `model`."""
        self._upstreams: dict[str, ServedUpstream] = {}
        patterns = {name for each in records.list_upstreams() for name in each.forward_headers}
        self.forward_names, self.forward_prefixes = _patterns(patterns)
        """Request headers that some upstream wants passed on."""

    def find_principal(self, key: bytes) -> Principal | None:
        """Return whose key this is; None when it is unknown, or its owner is suspended."""
        digest = sha256(key).digest()
        principal = self._known.get(digest)
        if principal is None:
            principal = self._read_principal(key_mac(self._pepper, key))
            if principal is not None:
                if len(self._known) >= KNOWN_KEYS:
                    self._known.clear()
                self._known[digest] = principal
        return principal

    def _read_principal(self, mac: bytes) -> Principal | None:
        try:
            key = self._records.find_key(mac)
            if key is None:
                return None
            return Principal(
                key.id,
                key.organization,
                key.project,
                None if key.aliases is None else frozenset(key.aliases),
                key.expires_at,
                None if key.networks is None else tuple(map(ip_network, key.networks)),
                frozenset(key.scopes),
                key.secret,
            )
        except (msgspec.DecodeError, ValueError) as error:
            log.error("key record unusable error=%s", error)  # noqa: TRY400 - no bug of ours
            return None

    def find_target(self, model: msgspec.Raw) -> Target | None:
        """Return where an alias leads.

        Args:
            model: The alias as JSON.

        Raises:
            msgspec.DecodeError: It is no string.
            UnicodeDecodeError: It is not UTF-8.
            SecretUnavailableError: The upstream's credential cannot be read.
            OSError: The upstream's CA file cannot be read.
        """
        name = bytes(model)
        target = self._targets.get(name)
        if target is None:
            target = self.find_alias(_decode_str(model))
            if target is not None and len(self._targets) < KNOWN_TARGETS:
                self._targets[name] = target
        return target

    def find_alias(self, name: str) -> Target | None:
        """Return where an alias leads; raises like `find_target`."""
        try:
            alias = self._records.find_alias(name)
            route = None if alias is None else self._records.find_route(alias.route)
            first = None if route is None else route.choices[0].deployment
            deployment = None if first is None else self._records.find_deployment(first)
            upstream = None if deployment is None else self._find_upstream(deployment.upstream)
        except msgspec.DecodeError as error:
            log.error("record unusable alias=%r error=%s", name, error)  # noqa: TRY400 - no bug
            return None
        if alias is None or deployment is None or upstream is None:
            return None
        return Target(alias.name, deployment, upstream, msgspec.Raw(_encode(deployment.model)))

    def has_alias(self, name: str) -> bool:
        """Return whether there is such an alias."""
        return self._records.find_alias(name) is not None

    def list_alias_names(self) -> list[str]:
        """Return the names of all aliases, in order."""
        return self._records.list_alias_names()

    def list_upstream_names(self) -> set[str]:
        """Return the names of all upstreams."""
        return {upstream.name for upstream in self._records.list_upstreams()}

    def _find_upstream(self, name: str) -> ServedUpstream | None:
        served = self._upstreams.get(name)
        if served is None:
            upstream = self._records.find_upstream(name)
            if upstream is None:
                return None
            served = self._upstreams[name] = _serve(upstream, self.version)
        return served


def _patterns(names: Iterable[str]) -> tuple[frozenset[bytes], tuple[bytes, ...]]:
    """Split header patterns into plain names and prefixes (`x-foo-*`)."""
    lower = [name.lower().encode("ascii") for name in names]
    prefixes = sorted({name[:-1] for name in lower if name.endswith(b"*")})
    return frozenset(name for name in lower if not name.endswith(b"*")), tuple(prefixes)


def _serve(upstream: Upstream, version: int) -> ServedUpstream:
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
    names, prefixes = _patterns(upstream.forward_headers)
    return ServedUpstream(
        name=upstream.name,
        version=version,
        endpoints=upstream.endpoints,
        authorization=authorization,
        forward_names=names,
        forward_prefixes=prefixes,
        timeouts=upstream.timeouts,
        max_connections=upstream.max_connections,
        tls=tls,
        settings=upstream,
    )
