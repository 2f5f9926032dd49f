"""Data keys: made, opened, kept for a short time, wrapped anew.

Every call that asks the KEK may block: an event loop runs it in a thread.
"""

import secrets
from collections import OrderedDict
from threading import Lock

from penstock.catalog.credentials.errors import (
    CredentialUnreadableError,
    KeysRefusedError,
    KeysUnavailableError,
)
from penstock.catalog.credentials.model import Dek, StoredDek
from penstock.kit.clock import Clock
from penstock.kit.envelope import RandomBytes, generate_key
from penstock.kit.kek.model import (
    Context,
    Kek,
    KekRefusedError,
    KekUnavailableError,
    UnwrapError,
)
from penstock.kit.kek.model import rewrap as rewrap_key

CACHE_S = 300.0
"""How long a data key stays in memory: who disables a KEK waits this long at most."""
CACHE_SIZE = 10_000


def wrapping_context(organization_id: str | None, dek_id: str) -> Context:
    """Return what a data key is bound to when it is wrapped; the platform's is nobody's else."""
    owner = {"scope": "platform"} if organization_id is None else {"organization": organization_id}
    return {**owner, "dek": dek_id}


def unavailable(error: KekUnavailableError) -> KeysUnavailableError:
    """Return what a KEK that cannot be used means for the data keys that need it."""
    kind = KeysRefusedError if isinstance(error, KekRefusedError) else KeysUnavailableError
    return kind(str(error))


def create_dek(
    dek_id: str,
    organization_id: str | None,
    kek: Kek,
    *,
    random_bytes: RandomBytes = secrets.token_bytes,
) -> tuple[StoredDek, Dek]:
    """Return a new data key: to be stored, and to be used.

    Raises:
        KeysUnavailableError: The KEK cannot be used now; there is no key.
    """
    key = generate_key(random_bytes)
    try:
        wrapped = kek.wrap(key, wrapping_context(organization_id, dek_id))
    except KekUnavailableError as error:
        raise unavailable(error) from None
    stored = StoredDek(id=dek_id, organization_id=organization_id, wrapped=wrapped)
    return stored, Dek(id=dek_id, organization_id=organization_id, key=key)


def open_dek(stored: StoredDek, kek: Kek) -> Dek:
    """Return a data key in clear.

    Raises:
        CredentialUnreadableError: It does not open for its organization, and never will.
        KeysUnavailableError: Not now.
    """
    context = wrapping_context(stored.organization_id, stored.id)
    try:
        key = kek.unwrap(stored.wrapped, context)
    except UnwrapError as error:
        message = f"data key {stored.id} does not open: {error}"
        raise CredentialUnreadableError(message) from None
    except KekUnavailableError as error:
        raise unavailable(error) from None
    return Dek(id=stored.id, organization_id=stored.organization_id, key=key)


def rewrap_dek(stored: StoredDek, kek: Kek) -> StoredDek | None:
    """Return the same data key under the KEK's current version, or None when it is under that.

    Ciphertexts that the data key made stay as they are.

    Raises:
        CredentialUnreadableError: As `open_dek`.
        KeysUnavailableError: As `open_dek`; nothing has changed.
    """
    context = wrapping_context(stored.organization_id, stored.id)
    try:
        wrapped = rewrap_key(stored.wrapped, context, kek)
    except UnwrapError as error:
        message = f"data key {stored.id} does not open: {error}"
        raise CredentialUnreadableError(message) from None
    except KekUnavailableError as error:
        raise unavailable(error) from None
    if wrapped == stored.wrapped:
        return None
    return StoredDek(id=stored.id, organization_id=stored.organization_id, wrapped=wrapped)


class DekCache:
    """Data keys in clear, used for at most five minutes each.

    Args:
        kek: Opens those that are not here. It is not asked again while one is.
        clock: Monotonic time.
        ttl_s: Seconds that a data key is kept.
        size: Data keys that are kept; the one that was used least recently goes first.
    """

    def __init__(
        self, kek: Kek, clock: Clock, *, ttl_s: float = CACHE_S, size: int = CACHE_SIZE
    ) -> None:
        """See the class."""
        self._kek = kek
        self._clock = clock
        self._ttl_s = ttl_s
        self._size = size
        self._kept: OrderedDict[StoredDek, tuple[float, Dek]] = OrderedDict()
        self._lock = Lock()

    def open(self, stored: StoredDek) -> Dek:
        """Return a data key in clear; see `open_dek`. Failures are not kept."""
        now_s = self._clock.monotonic_s()
        with self._lock:
            until_s, dek = self._kept.get(stored, (now_s, None))
            if dek is not None and now_s < until_s:
                self._kept.move_to_end(stored)
                return dek
        dek = open_dek(stored, self._kek)
        with self._lock:
            for old in [key for key, (until_s, _) in self._kept.items() if until_s <= now_s]:
                del self._kept[old]
            self._kept[stored] = (now_s + self._ttl_s, dek)
            self._kept.move_to_end(stored)
            while len(self._kept) > self._size:
                self._kept.popitem(last=False)
        return dek

    def forget(self, organization_id: str | None) -> None:
        """Drop an organization's data keys at once, e.g. when it leaves."""
        with self._lock:
            for stored in [key for key in self._kept if key.organization_id == organization_id]:
                del self._kept[stored]
