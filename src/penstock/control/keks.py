"""The key-encryption key that the control plane is set up with."""

import asyncio
import os
from contextlib import suppress

from penstock.catalog.credentials import store
from penstock.control import log_events
from penstock.control.settings import ControlSettings
from penstock.kit.kek.configure import configure_kek, list_key_files
from penstock.kit.kek.file import create_key_file
from penstock.kit.kek.model import Kek
from penstock.storage.database import Database
from penstock.storage.scope import Scope


def read_kek(settings: ControlSettings) -> Kek:
    """Return the KEK of the settings; it is asked nothing yet.

    Raises:
        KekSettingError: The setting names no keeper.
        KekUnavailableError: A package is missing.
    """
    return configure_kek(settings.kek, settings.kek_path, os.environ)


async def create_missing_key_file(settings: ControlSettings, database: Database) -> None:
    """Make the key file when it is missing and nothing was encrypted with it.

    When there are data keys, the file was lost: a new one would only hide that.

    Raises:
        DatabaseUnavailableError: It cannot be told whether there are data keys.
        OSError: It cannot be written.
    """
    missing = [
        path for path in list_key_files(settings.kek, settings.kek_path)[:1] if not path.exists()
    ]
    for path in missing:
        async with database.read(Scope.all_organizations()) as session:
            has_deks = await store.has_deks(session, session.scope)
        if has_deks:
            log_events.KEY_FILE_MISSING.log(path=path)
            return
        with suppress(FileExistsError):  # another control plane was quicker
            await asyncio.to_thread(create_key_file, path)
