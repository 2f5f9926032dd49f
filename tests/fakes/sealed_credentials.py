"""Credentials in a database to test with, and the keys that encrypt them."""

from pathlib import Path

from tests.fakes.organizations import ALL, NOW_US, actor

from penstock.catalog.credentials import service
from penstock.catalog.credentials.data_keys import DataKeys
from penstock.catalog.credentials.model import Credential, NewCredential
from penstock.catalog.tables import Upstreams
from penstock.kit.clock import ManualClock
from penstock.kit.envelope import SecretBytes
from penstock.kit.kek.file import FileKek, create_key_file
from penstock.storage.database import Database

SECRET = "sk-canary-0123456789"


def create_data_keys(path: Path) -> DataKeys:
    """Return data keys under a key file, which is made when it is missing."""
    if not path.exists():
        create_key_file(path)
    return DataKeys(FileKek(path), ManualClock())


async def create_upstream(database: Database, name: str = "engines") -> str:
    """Return the id of a new upstream."""
    async with database.write(ALL) as session:
        await session.insert(
            Upstreams,
            {
                "id": f"ups_{name}",
                "name": name,
                "provider": "vllm",
                "endpoints": ["http://127.0.0.1:1"],
                "region": None,
                "data_class": None,
                "credential_id": None,
                "credential_reference": None,
                "forward_headers": [],
                "timeouts": {},
                "max_connections": 10,
                "tls_ca_file": None,
                "is_disabled": False,
                "version": 1,
                "created_at": NOW_US,
                "updated_at": NOW_US,
            },
        )
    return f"ups_{name}"


async def create_credential(
    database: Database,
    keys: DataKeys,
    name: str = "credential",
    *,
    organization_id: str | None = None,
    secret: str = SECRET,
    upstream_id: str | None = None,
) -> Credential:
    """Return a new credential."""
    new = NewCredential(
        name=name,
        provider="vllm",
        secret=secret,
        organization_id=organization_id,
        upstream_id=upstream_id,
    )
    async with database.write(ALL) as session:
        return await service.create_credential(session, actor(), keys, new)


async def read_secret(database: Database, keys: DataKeys, credential_id: str) -> SecretBytes:
    """Return a credential in clear."""
    async with database.read(ALL) as session:
        return await service.read_secret(session, keys, credential_id)


async def find_state(database: Database, credential_id: str) -> str:
    """Return a credential's state."""
    async with database.read(ALL) as session:
        return (await service.get_credential(session, credential_id)).state
