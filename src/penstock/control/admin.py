"""The admin API as a whole: the rooms' endpoints behind one door."""

from fastapi import APIRouter, Depends, FastAPI
from fastapi.security import HTTPBearer

from penstock.access import api as access_api
from penstock.access import people_api
from penstock.access.peppers import read_peppers
from penstock.audit.api import create_audit_router
from penstock.audit.signing import CheckpointSigner
from penstock.catalog import api as catalog_api
from penstock.catalog.credentials.api import create_credentials_router
from penstock.catalog.credentials.data_keys import DataKeys
from penstock.control.authentication import read_token
from penstock.control.door import AdminDoor
from penstock.control.key_uses import KeyUses
from penstock.control.principals import Principals
from penstock.control.settings import ControlSettings
from penstock.kit.clock import Clock
from penstock.metering import api as metering_api
from penstock.storage.database import Database
from penstock.tenancy import api as tenancy_api


def add_admin_api(
    app: FastAPI,
    settings: ControlSettings,
    database: Database,
    *,
    clock: Clock,
    admin_token: bytes,
    signer: CheckpointSigner,
    data_keys: DataKeys,
    key_uses: KeyUses,
) -> None:
    """Add the endpoints of all rooms that are administered, and the door in front of them.

    Args:
        app: Where to.
        settings: Where secrets are; those that are missing are made.
        database: Where everything else is.
        clock: Says when a request came.
        admin_token: The one of the platform's operator.
        signer: Whose signatures the audit log's checkpoints bear.
        data_keys: What credentials of upstreams are encrypted with.
        key_uses: Told of keys that were shown.

    Raises:
        PenstockError: `PEPPER_INVALID`, `TOKEN_WEAK`.
        OSError: A secret cannot be read or made.
    """
    folder = settings.secrets_folder
    peppers = read_peppers(folder)
    app.state.door = AdminDoor(
        database,
        Principals(database, peppers, admin_token, key_uses),
        peppers,
        read_token(folder / "idempotency_secret"),
        clock,
    )
    routers: list[APIRouter] = [
        tenancy_api.organizations,
        tenancy_api.projects,
        people_api.members,
        people_api.service_accounts,
        access_api.keys,
        *catalog_api.ROUTERS,
        metering_api.usage,
        create_credentials_router(database, data_keys),
        create_audit_router(signer.public_keys),
    ]
    # Only told to the OpenAPI document: the door has looked at the token before.
    bearer = HTTPBearer(
        auto_error=False,
        scheme_name="adminKey",
        description="`secrets/admin_token`, or an API key with scope `admin` or `usage:read`",
    )
    for router in routers:
        app.include_router(router, dependencies=[Depends(bearer)])
