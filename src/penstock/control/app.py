"""The composition root: settings become an application."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path

from fastapi import FastAPI

import penstock
from penstock.access.peppers import Peppers, read_peppers
from penstock.audit.signing import CheckpointSigner
from penstock.billing.verifying import BILLING_CHECKS
from penstock.catalog.credentials.data_keys import DataKeys
from penstock.contract.exposition import Family
from penstock.contract.vitals import Vitals, show_processes
from penstock.control.admin import add_admin_api
from penstock.control.authentication import (
    create_bearer,
    create_page_authentication,
    read_token,
)
from penstock.control.books import UsageBooks
from penstock.control.broker_usage import BrokerUsage
from penstock.control.brokers import create_broker_usages
from penstock.control.budget_books import BudgetBooks
from penstock.control.chores import Chores
from penstock.control.document import ControlApp
from penstock.control.engine_operations import create_engine_operations_router
from penstock.control.event_schema import create_schema_router
from penstock.control.feed import create_feed_router
from penstock.control.headers import SafeHeaders
from penstock.control.health import create_health_router
from penstock.control.keks import create_missing_key_file, read_kek
from penstock.control.key_hashes import create_key_hashes_router
from penstock.control.key_uses import KeyUses
from penstock.control.ledger_books import LedgerBooks
from penstock.control.limit_uses import create_limit_uses_router
from penstock.control.metrics import (
    BUDGET_DIFFERENCES,
    CHARGES,
    CHORES_FAILING,
    COSTS,
    HOLDS_EXPIRED,
    LEDGER_VIOLATIONS,
    SETTLEMENT_FAULTS,
    USAGE_CONFLICTS,
    USAGE_FORGED,
    USAGE_UNRATED,
    by_label,
    create_metrics_router,
)
from penstock.control.money import create_holds_router
from penstock.control.principals import Principals
from penstock.control.problems import PROBLEM_RESPONSES, install_problems
from penstock.control.quarantine import Quarantine
from penstock.control.registrations import create_registrations_router
from penstock.control.secret_scanning import ScannerKeys, create_secret_scanning_router
from penstock.control.settings import ControlSettings
from penstock.control.status_page import create_page_router
from penstock.kit.clock import Clock, SystemClock
from penstock.metering.api import create_node_router
from penstock.metering.intake import Intake
from penstock.storage.database import Database

_DESCRIPTION = (
    "What operators and nodes say to Penstock's control plane. "
    "Errors are problem details (RFC 9457) with a stable `code`."
)


def create_app(settings: ControlSettings, clock: Clock | None = None) -> FastAPI:
    """Return the control plane as an ASGI application.

    Its lifespan opens the database, migrating it when it is older, and closes it. Tokens are
    read, or made, at once.

    Args:
        settings: Where its data is.
        clock: Says when usage was recorded; the machine's when None.

    Raises:
        PenstockError: A secret in the data folder is weak, or a signing key is none.
        SecretUnavailableError: The database's address cannot be read.
        KekSettingError, KekUnavailableError: The setting of the KEK is of no use.
        OSError: The data folder cannot be read or written.
    """
    clock = clock or SystemClock()
    Path(settings.data_dir).mkdir(mode=0o700, parents=True, exist_ok=True)
    node_token = read_token(settings.node_token_path)
    admin_token = read_token(settings.admin_token_path)
    database = Database(settings.database_location)
    peppers = read_peppers(settings.secrets_folder)
    key_uses = KeyUses(database, peppers, clock)
    signer = CheckpointSigner.from_file(settings.secrets_folder / "audit_signing_key")
    data_keys = DataKeys(read_kek(settings), clock)
    books = BudgetBooks(database, clock)
    usage_books = UsageBooks(settings.billing_currency)
    quarantine = Quarantine(database)
    ledger = LedgerBooks(database, clock, BILLING_CHECKS)
    take = Intake(database, clock, usage_books, usage_books.committed)
    vitals = Vitals("control")
    brokers = create_broker_usages(settings, node_token, take)
    chores = Chores(
        database,
        signer,
        data_keys,
        clock,
        key_uses=key_uses,
        books=books,
        quarantine=quarantine,
        ledger=ledger,
    )
    collect = partial(_collect, chores, usage_books, quarantine, brokers, vitals=vitals)
    app = ControlApp(
        title="Penstock control plane",
        version=penstock.__version__,
        description=_DESCRIPTION,
        lifespan=_create_lifespan(settings, database, chores, brokers, vitals),
        responses=PROBLEM_RESPONSES,
        # The interactive pages would load their code from somebody else's servers.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.is_stopping = lambda: False  # whoever serves it may know better
    app.add_middleware(SafeHeaders)
    install_problems(app)
    authenticate_node = create_bearer(node_token, "nodeToken", "`secrets/node_token`")
    app.include_router(create_health_router(database))
    for router in (
        create_schema_router(),
        create_node_router(database, authenticate_node, take),
        create_holds_router(database, clock, authenticate_node),
        create_metrics_router(collect, authenticate_node),
        create_feed_router(database, authenticate_node),
        create_engine_operations_router(database, clock, authenticate_node),
        create_registrations_router(database, peppers, clock, authenticate_node),
        create_key_hashes_router(database, peppers, clock, authenticate_node),
        create_limit_uses_router(database, authenticate_node),
    ):
        app.include_router(router)
    app.include_router(create_page_router(database, clock, create_page_authentication(admin_token)))
    _add_secret_scanning(app, settings, database, peppers, clock)
    add_admin_api(
        app,
        settings,
        database,
        clock=clock,
        principals=Principals(database, peppers, admin_token, key_uses),
        signer=signer,
        data_keys=data_keys,
        peppers=peppers,
    )
    return app


def _create_lifespan(
    settings: ControlSettings,
    database: Database,
    chores: Chores,
    brokers: Sequence[BrokerUsage],
    vitals: Vitals,
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await database.open()
        await create_missing_key_file(settings, database)
        vitals.start(asyncio.get_running_loop())
        working = [asyncio.create_task(chores.run(), name="chores")]
        working += [asyncio.create_task(broker.run(), name="broker") for broker in brokers]
        try:
            yield
        finally:
            for task in working:
                task.cancel()
            await asyncio.wait(working)
            vitals.stop()
            await database.close()

    return lifespan


def _add_secret_scanning(
    app: FastAPI, settings: ControlSettings, database: Database, peppers: Peppers, clock: Clock
) -> None:
    if settings.secret_scanning_keys is None:
        return
    keys = ScannerKeys.from_file(Path(settings.secret_scanning_keys))
    action = settings.secret_scanning_action
    app.include_router(create_secret_scanning_router(database, peppers, clock, keys, action))


def _collect(
    chores: Chores,
    usage_books: UsageBooks,
    quarantine: Quarantine,
    brokers: Sequence[BrokerUsage],
    *,
    vitals: Vitals,
) -> Iterator[Family]:
    for metric, figure in (
        (BUDGET_DIFFERENCES, chores.books.differences),
        (LEDGER_VIOLATIONS, chores.ledger.violations),
        (HOLDS_EXPIRED, chores.books.expired),
        (USAGE_CONFLICTS, quarantine.size),
        (CHORES_FAILING, len(chores.failing)),
        (USAGE_FORGED, sum(broker.forged for broker in brokers)),
    ):
        yield Family(metric, {(): figure})
    yield Family(SETTLEMENT_FAULTS, by_label(usage_books.faults))
    yield Family(USAGE_UNRATED, by_label(usage_books.unrated))
    yield Family(CHARGES, usage_books.amounts.charges)
    yield Family(COSTS, usage_books.amounts.costs)
    yield from vitals.families()
    yield from show_processes({"control": os.getpid()})
