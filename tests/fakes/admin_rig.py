"""A control plane with organizations, projects and keys of every role, to call over HTTP."""

import shutil
import sqlite3
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from penstock.access.peppers import read_peppers
from penstock.audit.signing import CheckpointSigner
from penstock.catalog.credentials.data_keys import DataKeys
from penstock.control.admin import add_admin_api
from penstock.control.app import create_app
from penstock.control.budget_books import BudgetBooks
from penstock.control.chores import Chores
from penstock.control.keks import create_missing_key_file, read_kek
from penstock.control.key_uses import KeyUses
from penstock.control.ledger_books import LedgerBooks
from penstock.control.principals import Principals
from penstock.control.problems import install_problems
from penstock.control.quarantine import Quarantine
from penstock.control.settings import ControlSettings
from penstock.kit.clock import ManualClock
from penstock.storage.database import Database

ADMIN_TOKEN = "admin-token-of-these-tests"
OPERATION = "x-penstock-operation"
METHODS = ("get", "post", "patch", "put", "delete")


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation of the OpenAPI document."""

    name: str
    """In the matrix; empty when it declares none."""
    method: str
    path: str

    def __str__(self) -> str:
        """Return it as a test's id."""
        return f"{self.method} {self.path}"

    @property
    def is_change(self) -> bool:
        """Whether it is told to change something."""
        # Some that change nothing have a body to ask with.
        return self.method != "get" and not self.path.endswith(("/verify", "/events"))


def make_document(folder: Path) -> dict[str, Any]:
    """Return the OpenAPI document of a control plane in a folder; it takes a second to make."""
    return create_app(ControlSettings(data_dir=str(folder))).openapi()


def list_operations(document: dict[str, Any]) -> list[Operation]:
    """Return the operations of a document."""
    return [
        Operation(entry.get(OPERATION, ""), method, path)
        for path, entries in document["paths"].items()
        for method, entry in entries.items()
        if method in METHODS
    ]


def place_of(path: str) -> str:
    """Return where a path below `/api/v1` is, and one in OpenAI's form as it is."""
    return path if path.startswith("/v1/") else f"/api/v1{path}"


@dataclass(slots=True)
class AdminRig:
    """What `run_admin_rig` hands out."""

    app: FastAPI
    client: httpx.AsyncClient
    clock: ManualClock
    data: Path
    chores: Chores | None
    """Of the admin API alone, to be done by hand; a whole control plane does its own."""
    counter: int = field(default=0)

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str = ADMIN_TOKEN,
        **headers: str,
    ) -> httpx.Response:
        """Send a request below `/api/v1`, or to a path of OpenAI's.

        Names of headers have underscores here.
        """
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if token:
            named["authorization"] = f"Bearer {token}"
        content = {} if body is None else {"json": body}
        return await self.client.request(method, place_of(path), headers=named, **content)

    def dump(self) -> list[str]:
        """Return everything that is stored, as SQL, but what looking leaves: denials and uses."""
        copy = sqlite3.connect(":memory:")
        stored = sqlite3.connect(self.data / "usage.db")
        stored.backup(copy)
        stored.close()
        for table in ("api_keys", "key_secrets"):
            copy.execute(f"UPDATE {table} SET last_used_at = NULL")  # noqa: S608 - ours
        lines = [line for line in copy.iterdump() if "audit_" not in line]
        copy.close()
        return lines

    async def create(self, path: str, **body: Any) -> dict[str, Any]:
        """Create an object as the operator and return it."""
        answer = await self.call("POST", path, body)
        assert answer.status_code == 201, answer.text
        created: dict[str, Any] = answer.json()
        return created

    async def create_project(self, name: str) -> dict[str, Any]:
        """Create a project in an organization of its own."""
        organization = await self.create("/organizations", name=f"{name} organization")
        return await self.create("/projects", organization_id=organization["id"], name=name)

    async def create_token(
        self, project_id: str, role: str, scopes: Iterable[str] = ("admin",), **members: Any
    ) -> str:
        """Create a key and return its text."""
        self.counter += 1
        created = await self.create(
            "/keys",
            project_id=project_id,
            name=f"{role} {self.counter}",
            role=role,
            scopes=list(scopes),
            **members,
        )
        secret: str = created["secret"]
        return secret


@asynccontextmanager
async def run_admin_rig(template: Path, data: Path) -> AsyncIterator[AdminRig]:
    """Run a control plane on a copy of a migrated SQLite file, with a clock that stands still."""
    _write_token(data)
    shutil.copy(template, data / "usage.db")
    clock = ManualClock()
    app = create_app(ControlSettings(data_dir=str(data)), clock)
    async with app.router.lifespan_context(app), _connect(app) as client:
        yield AdminRig(app, client, clock, data, None)


@asynccontextmanager
async def run_admin_api(database: Database, data: Path) -> AsyncIterator[AdminRig]:
    """Run the admin API alone on any database."""
    _write_token(data)
    clock = ManualClock()
    app = FastAPI()
    install_problems(app)
    settings = ControlSettings(data_dir=str(data))
    signer = CheckpointSigner.from_file(settings.secrets_folder / "audit_signing_key")
    await create_missing_key_file(settings, database)
    peppers = read_peppers(settings.secrets_folder)
    key_uses = KeyUses(database, peppers, clock)
    data_keys = DataKeys(read_kek(settings), clock)
    add_admin_api(
        app,
        settings,
        database,
        clock=clock,
        principals=Principals(database, peppers, ADMIN_TOKEN.encode(), key_uses),
        signer=signer,
        data_keys=data_keys,
        peppers=peppers,
    )
    books = BudgetBooks(database, clock)
    chores = Chores(
        database,
        signer,
        data_keys,
        clock,
        key_uses=key_uses,
        books=books,
        quarantine=Quarantine(database),
        ledger=LedgerBooks(database, clock),
    )
    async with _connect(app) as client:
        yield AdminRig(app, client, clock, data, chores)


def _write_token(data: Path) -> None:
    (data / "secrets").mkdir(parents=True, exist_ok=True)
    (data / "secrets" / "admin_token").write_text(ADMIN_TOKEN)


def _connect(app: FastAPI) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, client=("192.0.2.7", 4711))
    return httpx.AsyncClient(transport=transport, base_url="http://control")


def expect_problem(answer: httpx.Response, status: int, code: str) -> None:
    """Fail unless an answer is that problem."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == code
