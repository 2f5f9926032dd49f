"""What a worker serves from: the snapshot, looked up by what requests carry."""

from collections.abc import Callable
from hashlib import sha256
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Protocol

import msgspec

from penstock.access.peppers import Peppers
from penstock.access.rules import key_mac
from penstock.contract.snapshot import Key, Upstream
from penstock.contract.snapshot_store import Meta
from penstock.gateway import log_events, offer, quota
from penstock.gateway.dialects.members import Members
from penstock.gateway.dialects.openai import Operation
from penstock.gateway.limits import KNOWN_KEYS, KNOWN_LISTS, KNOWN_OFFERS
from penstock.gateway.offer import Catalog, Contexts, Offer, Owner, header_patterns
from penstock.gateway.prefix import Prefix, read_prefix
from penstock.gateway.priced import Pricing
from penstock.gateway.quota import Quota, read_quota
from penstock.gateway.rehash import OldHashes
from penstock.gateway.tokens import Tokens
from penstock.kit.errors import Refusal

_decode_str = msgspec.json.Decoder(str).decode


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
    quota: Quota | None = None
    """Its limits and budgets; None when it has none."""
    has_unreadable_limits: bool = False
    """It has some, and nobody knows which: nothing may be used."""


class Records(offer.Records, quota.Records, Protocol):
    """Where the snapshot's records are: `contract.snapshot_store.SnapshotReader`."""

    meta: Meta

    def find_key(self, mac: bytes) -> Key | None:
        """Return a usable API key."""

    def list_upstreams(self) -> list[Upstream]:
        """Return all upstreams."""


class Runtime:
    """One version of the snapshot: its records, read when a request first needs them.

    A record that cannot be read is as good as absent: it harms nothing beside it.

    Args:
        records: Where they are; must not change under a runtime: a new version is a new one.
        peppers: What the keys' hashes were made with.
        tokens: What references to credentials stand for.
        turn: Returns a number in [0, 1), for requests that have a choice.
        old_hashes: Told of keys that are stored under another pepper than the active one.
        now_s: Returns seconds since the Unix epoch.
        heeds_prefixes: Whether it matters how prompts begin.
    """

    def __init__(
        self,
        records: Records,
        peppers: Peppers,
        *,
        tokens: Tokens,
        turn: Callable[[], float],
        old_hashes: OldHashes,
        now_s: Callable[[], float],
        heeds_prefixes: bool = False,
    ) -> None:
        """See the class."""
        self._records = records
        self._peppers = [pepper for _, pepper in sorted(peppers.values.items(), reverse=True)]
        """The active one first."""
        self._tokens = tokens
        self.turn = turn
        self._old_hashes = old_hashes
        self._now_s = now_s
        self._told_hashes: set[bytes] = set()
        # No key begins so: this is the hash of none. It is the same in all workers and nodes.
        self._prefix_key = key_mac(self._peppers[0], b"prefix\0") if heeds_prefixes else None
        self.version = records.meta.version
        self.created_s = records.meta.created_at_ns // 1_000_000_000
        self._known: dict[bytes, Principal] = {}
        """Keys that were found, by plain SHA-256 (they are 190 random bits): the keyed hash
        costs five times as much. Gone with the version."""
        self.forget_offers()
        patterns = {name for each in records.list_upstreams() for name in each.forward_headers}
        self.forward_names, self.forward_prefixes = header_patterns(patterns)
        """Request headers that some upstream wants passed on."""

    def forget_offers(self) -> None:
        """Look at credentials and prices again: others are known now, or hold now."""
        self._pricing = Pricing(self._records, self._now_s)
        self._catalog = Catalog(
            self._records, self._tokens, self.version, self._pricing, self.pseudonym
        )
        self._offers: dict[tuple[str, str, bytes], Offer] = {}
        """By organization, project and alias as JSON writes it: spares the decoding of `model`."""
        self._lists: dict[Owner, tuple[str, ...]] = {}

    def sweep(self) -> None:
        """Forget offers once a price that one of them rests on begins or ends."""
        if self._pricing.is_over:
            self.forget_offers()

    def find_principal(self, key: bytes) -> Principal | None:
        """Return whose key this is; None when it is unknown, or its owner is suspended."""
        digest = sha256(key).digest()
        principal = self._known.get(digest)
        if principal is None:
            principal = self._look_up(key)
            if principal is not None:
                if len(self._known) >= KNOWN_KEYS:
                    self._known.clear()
                self._known[digest] = principal
        return principal

    def _look_up(self, key: bytes) -> Principal | None:
        """Look under the active pepper, then under the other."""
        active: bytes | None = None
        for pepper in self._peppers:
            mac = key_mac(pepper, key)
            principal = self._read_principal(mac)
            if principal is None:
                active = active or mac
                continue
            if active is not None and mac not in self._told_hashes:
                if len(self._told_hashes) < KNOWN_KEYS:
                    self._told_hashes.add(mac)
                self._old_hashes.note(mac, active)
            return principal
        return None

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
                *self._read_quota(key),
            )
        except (msgspec.DecodeError, ValueError) as error:
            log_events.KEY_UNUSABLE.log(error=error)
            return None

    def _read_quota(self, key: Key) -> tuple[Quota | None, bool]:
        """Return the limits of a key, and whether they cannot be read."""
        try:
            return read_quota(self._records, key), False
        except msgspec.DecodeError as error:
            log_events.LIMITS_UNUSABLE.log(key=key.id, error=error)
            return None, True

    def find_offer(self, principal: Principal, model: msgspec.Raw) -> Offer | Refusal | None:
        """Return where a request for an alias may go; why nowhere, if so.

        Args:
            principal: Who asks.
            model: The alias as JSON.

        Returns:
            None when there is no such alias for this principal.

        Raises:
            msgspec.DecodeError: It is no string.
            UnicodeDecodeError: It is not UTF-8.
        """
        name = (principal.organization, principal.project, bytes(model))
        offer = self._offers.get(name)
        if offer is None:
            return self._make_offer(principal, name)
        aliases = principal.aliases
        return offer if aliases is None or offer.first.alias in aliases else None

    def _make_offer(
        self, principal: Principal, name: tuple[str, str, bytes]
    ) -> Offer | Refusal | None:
        organization, project, model = name
        alias = _decode_str(model)
        if principal.aliases is not None and alias not in principal.aliases:
            return None
        found = self._catalog.make_offer(alias, Owner(organization, project))
        if isinstance(found, Offer) and found.is_complete:
            if len(self._offers) >= KNOWN_OFFERS:
                self._offers.clear()
            self._offers[name] = found
        return found

    def pseudonym(self, organization: str, name: bytes) -> bytes:
        """Return what stands for an organization's user towards engines, as 32 hexadecimal digits.

        The same on all nodes until another pepper takes over; without that nobody can tell whose
        it is.
        """
        # No key begins so: this is the hash of none.
        text = b"user\0%b\0%b" % (organization.encode(), name)
        return key_mac(self._peppers[0], text).hex()[:32].encode()

    def read_prefix(
        self, principal: Principal, operation: Operation, members: Members
    ) -> Prefix | None:
        """Return how the prompt of a request begins; None when that does not matter."""
        if self._prefix_key is None or not operation.can_stream:
            return None
        question, lead = members[operation.input_member], members.get("tools", b"")
        if operation.lead_member:
            lead = bytes(lead) + bytes(members.get(operation.lead_member, b""))
        return read_prefix(question, lead, principal.organization.encode(), self._prefix_key)

    def may_use(self, principal: Principal, alias: str) -> bool:
        """Return whether there is such an alias for this principal."""
        if principal.aliases is not None and alias not in principal.aliases:
            return False
        return self._catalog.may_use(alias, Owner(principal.organization, principal.project))

    def list_alias_names(self, principal: Principal) -> list[str]:
        """Return the names of all aliases that this principal may use, in order."""
        owner = Owner(principal.organization, principal.project)
        names = self._lists.get(owner)
        if names is None:
            if len(self._lists) >= KNOWN_LISTS:
                self._lists.clear()
            names = self._lists[owner] = self._catalog.list_names(owner)
        return [n for n in names if principal.aliases is None or n in principal.aliases]

    def find_parent(self, principal: Principal, alias: str) -> str | None:
        """Return under which name a principal may use the model that an alias' adapter adapts."""
        names = self._catalog.list_parents(alias)
        return next((name for name in names if self.may_use(principal, name)), None)

    def find_context(self, alias: str, contexts: Contexts) -> int | None:
        """Return how many tokens a request for an alias may have; None when nobody said."""
        return self._catalog.find_context(alias, contexts) if contexts else None

    def list_upstream_names(self) -> set[str]:
        """Return the names of all upstreams."""
        return {upstream.name for upstream in self._records.list_upstreams()}
