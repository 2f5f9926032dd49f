"""The schema of usage events, for whoever reads them elsewhere."""

from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from penstock.contract.cloud_event import SCHEMA_PATH, event_schema


def create_schema_router() -> APIRouter:
    """Return the endpoint with the schema; it needs no token, and is the same everywhere."""
    router = APIRouter(tags=["schemas"])
    schema = event_schema()

    @router.get(
        SCHEMA_PATH,
        summary="Get the JSON Schema of usage events",
        description="Of `penstock.usage.v1`, a CloudEvent. In one version members are only added.",
        response_class=JSONResponse,
        responses={
            200: {
                "content": {
                    "application/json": {
                        "schema": {"type": "object", "examples": [{"$id": schema["$id"]}]}
                    }
                }
            }
        },
    )
    async def get_usage_event_schema() -> Any:
        return JSONResponse(schema)

    return router
