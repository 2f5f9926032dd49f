"""The control plane's own metrics, and the page that Prometheus reads."""

from collections.abc import Callable, Iterable, Mapping

from fastapi import APIRouter, Depends, Request
from fastapi.responses import PlainTextResponse

from penstock.audit.door import problem_responses
from penstock.contract.exposition import (
    OPENMETRICS_TYPE,
    TEXT_TYPE,
    Family,
    wants_openmetrics,
    write_page,
)
from penstock.contract.metrics import Metric
from penstock.contract.series import Labels
from penstock.storage.errors import UNAVAILABLE
from penstock.storage.scope import Scope

BUDGET_DIFFERENCES = Metric(
    "penstock_budget_differences",
    "gauge",
    (),
    "Windows of budgets that differed from their charges and holds when last compared: must be 0.",
)
HOLDS_EXPIRED = Metric(
    "penstock_holds_expired_total",
    "counter",
    (),
    "Holds that ended because their worker gave no sign of life for a day.",
)
SETTLEMENT_FAULTS = Metric(
    "penstock_settlement_faults_total",
    "counter",
    ("fault",),
    "Times that usage was stored and could not be settled in full, by what was wrong.",
)
USAGE_CONFLICTS = Metric(
    "penstock_usage_conflicts",
    "gauge",
    (),
    "Usage events in quarantine: their id was stored with another content. Must be 0.",
)
USAGE_UNRATED = Metric(
    "penstock_usage_unrated_total",
    "counter",
    ("reason",),
    "Usage events that were rated at nothing: without a price, or with figures nobody believes.",
)
LEDGER_VIOLATIONS = Metric(
    "penstock_ledger_violations",
    "gauge",
    (),
    "Rows that the ledger should not have, when it was last verified: must be 0.",
)
CHORES_FAILING = Metric(
    "penstock_chores_failing",
    "gauge",
    (),
    "Things that the control plane does by itself and could not do when it last tried: must be 0. "
    "What they keep, such as other metrics that must be 0, is old meanwhile.",
)
USAGE_FORGED = Metric(
    "penstock_usage_forged_messages_total",
    "counter",
    (),
    "Messages on a broker that hold usage and were not written by a node of ours: must be 0.",
)
CHARGES = Metric(
    "penstock_charges_total",
    "counter",
    ("organization", "currency"),
    "What usage was charged, in units of the currency: rounded, for graphs alone. What lowers a "
    "charge is not in it; the ledger is exact.",
)
COSTS = Metric(
    "penstock_costs_total",
    "counter",
    ("organization", "currency"),
    "What that usage cost the platform, in the same way.",
)

_PAGE = {"type": "string", "examples": [f"{BUDGET_DIFFERENCES.name} 0\n"]}


def create_metrics_router(
    collect: Callable[[], Iterable[Family]], authenticate: Callable[..., Scope]
) -> APIRouter:
    """Return the endpoint that Prometheus reads, with the node's token.

    Args:
        collect: Returns all metrics as they are now.
        authenticate: Checks the token.
    """
    router = APIRouter(tags=["health"])

    @router.get(
        "/metrics",
        summary="Metrics of this process in Prometheus' text form, or as OpenMetrics",
        response_class=PlainTextResponse,
        responses={
            200: {"content": {"text/plain": {"schema": _PAGE}}},
            **problem_responses(UNAVAILABLE),
        },
        dependencies=[Depends(authenticate)],
    )
    async def get_metrics(request: Request) -> PlainTextResponse:
        is_openmetrics = wants_openmetrics(request.headers.get("accept", ""))
        text = "".join(write_page(collect(), is_openmetrics=is_openmetrics))
        return PlainTextResponse(text, media_type=OPENMETRICS_TYPE if is_openmetrics else TEXT_TYPE)

    return router


def by_label(figures: Mapping[str, int]) -> dict[Labels, float]:
    """Return figures by the value of a metric's only label as series."""
    return {(value,): float(figure) for value, figure in figures.items()}
