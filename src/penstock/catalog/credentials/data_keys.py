"""Data keys for the control plane: made and opened off its event loop, kept for a short time."""

import asyncio

from penstock.catalog.credentials.deks import DekCache, create_dek, rewrap_dek, unavailable
from penstock.catalog.credentials.model import Dek, StoredDek
from penstock.kit.base62 import create_id
from penstock.kit.clock import Clock
from penstock.kit.kek.model import Kek, KekUnavailableError, KekVersion


class DataKeys:
    """What the control plane does with its KEK.

    Args:
        kek: Wraps and unwraps; its calls may block and run in threads.
        clock: Tells how long a data key was kept.
    """

    def __init__(self, kek: Kek, clock: Clock) -> None:
        """See the class."""
        self._kek = kek
        self._cache = DekCache(kek, clock)

    async def create(self, organization_id: str | None) -> tuple[StoredDek, Dek]:
        """Return a new data key: to be stored, and to be used.

        Raises:
            KeysUnavailableError: The KEK cannot be used now.
        """
        return await asyncio.to_thread(create_dek, create_id("dek"), organization_id, self._kek)

    async def open(self, stored: StoredDek) -> Dek:
        """Return a data key in clear.

        Raises:
            CredentialUnreadableError: It never will open.
            KeysUnavailableError: Not now.
        """
        return await asyncio.to_thread(self._cache.open, stored)

    def open_blocking(self, stored: StoredDek) -> Dek:
        """Do what `open` does, in a thread that may wait."""
        return self._cache.open(stored)

    def rewrap_blocking(self, stored: StoredDek) -> StoredDek | None:
        """Wrap a data key anew, in a thread that may wait; see `deks.rewrap_dek`."""
        return rewrap_dek(stored, self._kek)

    async def current(self) -> KekVersion:
        """Return what new data keys are wrapped with.

        Raises:
            KeysUnavailableError: The keeper does not say.
        """
        try:
            return await asyncio.to_thread(self._kek.current)
        except KekUnavailableError as error:
            raise unavailable(error) from None

    async def is_served(self, stored: StoredDek) -> bool:
        """Tell whether the KEK of a data key is configured here: if not, the key is not at fault.

        Raises:
            KeysUnavailableError: It cannot be told now.
        """
        try:
            return await asyncio.to_thread(self._kek.serves, stored.wrapped.kek.uri)
        except KekUnavailableError as error:
            raise unavailable(error) from None
