"""Whether the control plane lives, and whether it can do its work."""

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from penstock.audit.door import problem_responses
from penstock.storage.database import Database
from penstock.storage.errors import UNAVAILABLE


class Live(BaseModel):
    """The process answers."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "live"}]})

    status: Literal["live"] = "live"


class Ready(BaseModel):
    """The database answers, too."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"status": "ready", "database": "available"}]}
    )

    status: Literal["ready"] = "ready"
    database: Literal["available"] = "available"
    """When it is not, the answer is the error that every endpoint gives then, with status 503."""


def create_health_router(database: Database) -> APIRouter:
    """Return the endpoints that supervisors ask; they need no token and tell nothing else."""
    router = APIRouter(prefix="/health", tags=["health"])

    @router.get("/live", summary="Does the process answer?")
    async def get_live() -> Live:
        return Live()

    @router.get(
        "/ready",
        summary="Does the database answer, too?",
        responses=problem_responses(UNAVAILABLE),
    )
    async def get_ready() -> Ready:
        await database.check()
        return Ready()

    return router
