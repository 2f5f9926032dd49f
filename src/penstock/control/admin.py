"""The admin API as a whole: the rooms' endpoints behind one door."""

import functools
from collections.abc import Sequence

from fastapi import APIRouter, Depends, FastAPI
from fastapi.security import HTTPBearer
from starlette.routing import BaseRoute

from penstock.access import api as access_api
from penstock.access import people_api
from penstock.access.peppers import Peppers
from penstock.audit.api import create_audit_router
from penstock.audit.signing import CheckpointSigner
from penstock.billing.api import create_billing_routers
from penstock.billing.story_api import requests
from penstock.billing.verifying import BILLING_CHECKS
from penstock.catalog import api as catalog_api
from penstock.catalog.apply import reading as catalog_kinds
from penstock.catalog.apply.api import create_platform_router
from penstock.catalog.credentials.api import create_credentials_router
from penstock.catalog.credentials.data_keys import DataKeys
from penstock.catalog.operations.api import engine_operations
from penstock.catalog.registrations.api import registration_tokens, registrations
from penstock.control.authentication import read_token
from penstock.control.door import AdminDoor
from penstock.control.log_levels import record_level
from penstock.control.principals import Principals
from penstock.control.problems import PROBLEM_RESPONSES
from penstock.control.ratings import post_differences
from penstock.control.settings import ControlSettings
from penstock.kit.clock import Clock
from penstock.ledger.api import create_ledger_routers
from penstock.ledger.chain_api import reconciliation
from penstock.limits import applying as limit_kinds
from penstock.limits import budget_api, rule_api
from penstock.limits.budget_api import create_budgets_router
from penstock.limits.budget_applying import BUDGETS
from penstock.metering import api as metering_api
from penstock.metering import bucket_api, latency_api
from penstock.metering.openai_api import openai_usage
from penstock.notices import api as notices_api
from penstock.rating import api as price_api
from penstock.rating import cost_api
from penstock.rating.correction_api import create_correction_router
from penstock.rating.exports.api import create_export_router
from penstock.rating.openai_api import openai_costs
from penstock.rating.prices import list_unpriced
from penstock.rating.run_api import create_run_routers
from penstock.storage.database import Database
from penstock.tenancy import api as tenancy_api


def add_admin_api(
    app: FastAPI,
    settings: ControlSettings,
    database: Database,
    *,
    clock: Clock,
    principals: Principals,
    signer: CheckpointSigner,
    data_keys: DataKeys,
    peppers: Peppers,
) -> None:
    """Add the endpoints of all rooms that are administered, and the door in front of them.

    Args:
        app: Where to.
        settings: Where secrets are; those that are missing are made.
        database: Where everything else is.
        clock: Says when a request came.
        principals: Tells who calls.
        signer: Whose signatures the audit log's checkpoints bear.
        data_keys: What credentials of upstreams are encrypted with.
        peppers: What keys are hashed under.

    Raises:
        PenstockError: `TOKEN_WEAK`.
        OSError: A secret cannot be read or made.
    """
    app.state.door = AdminDoor(
        database,
        principals,
        peppers,
        read_token(settings.secrets_folder / "idempotency_secret"),
        clock,
    )
    app.state.record_level = functools.partial(record_level, database, clock)
    app.router.routes.extend(_routes_of_rooms())
    for router in (
        create_budgets_router(list_unpriced),
        *create_ledger_routers(settings.billing_currency, BILLING_CHECKS),
        *create_billing_routers(settings.billing_currency, settings.billing_grace_s),
        create_correction_router(post_differences),
        *create_run_routers(post_differences),
        create_export_router(settings.provider_name),
        create_credentials_router(database, data_keys),
        create_platform_router(data_keys, [*catalog_kinds.KINDS, *limit_kinds.KINDS, BUDGETS]),
        create_audit_router(signer.public_keys),
    ):
        app.router.routes.extend(_include(router))


@functools.cache
def _routes_of_rooms() -> Sequence[BaseRoute]:
    """Return the routes that know nothing of an application.

    FastAPI builds routes anew where they are included: so it does these once in a process.
    """
    return [
        route
        for router in (
            tenancy_api.organizations,
            tenancy_api.projects,
            people_api.members,
            people_api.service_accounts,
            access_api.keys,
            access_api.peppers,
            *catalog_api.ROUTERS,
            engine_operations,
            registration_tokens,
            registrations,
            rule_api.plans,
            rule_api.limits,
            budget_api.budgets,
            budget_api.holds,
            price_api.price_books,
            price_api.prices,
            metering_api.usage,
            notices_api.notices,
            reconciliation,
            bucket_api.buckets,
            latency_api.latency,
            openai_usage,
            openai_costs,
            cost_api.costs,
            requests,
        )
        for route in _include(router)
    ]


def _include(router: APIRouter) -> Sequence[BaseRoute]:
    """Return a router's routes, with what the OpenAPI document says of each in the admin API."""
    # Only told to the document: the door has looked at the token before.
    bearer = HTTPBearer(
        auto_error=False,
        scheme_name="adminKey",
        description=(
            "`secrets/admin_token`, or an API key with scope `admin`, `usage:read` or `costs:read`"
        ),
    )
    included = APIRouter(
        responses=PROBLEM_RESPONSES, generate_unique_id_function=lambda route: route.name
    )
    included.include_router(router, dependencies=[Depends(bearer)])
    return included.routes
