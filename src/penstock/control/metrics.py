"""The control plane's own metrics, and the page that Prometheus reads."""

from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

from fastapi import APIRouter, Depends
from fastapi.responses import PlainTextResponse

from penstock.audit.door import problem_responses
from penstock.contract.metrics import Metric
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
USAGE_FORGED = Metric(
    "penstock_usage_forged_messages_total",
    "counter",
    (),
    "Messages on a broker that hold usage and were not written by a node of ours: must be 0.",
)

_PAGE = {"type": "string", "examples": [f"{BUDGET_DIFFERENCES.name} 0\n"]}

Series: TypeAlias = Mapping[str, int]
"""Values by that of the only label; "" for a metric without one."""


def create_metrics_router(
    collect: Callable[[], Iterable[tuple[Metric, Series]]], authenticate: Callable[..., Scope]
) -> APIRouter:
    """Return the endpoint that Prometheus reads, with the node's token.

    Args:
        collect: Returns all metrics as they are now.
        authenticate: Checks the token.
    """
    router = APIRouter(tags=["health"])

    @router.get(
        "/metrics",
        summary="Metrics in Prometheus' text form, of this process",
        response_class=PlainTextResponse,
        responses={
            200: {"content": {"text/plain": {"schema": _PAGE}}},
            **problem_responses(UNAVAILABLE),
        },
        dependencies=[Depends(authenticate)],
    )
    async def get_metrics() -> PlainTextResponse:
        text = "".join(_render(metric, series) for metric, series in collect())
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    return router


def _render(metric: Metric, series: Series) -> str:
    lines = [f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} {metric.kind}"]
    for value, figure in series.items():
        labels = f'{{{metric.labels[0]}="{value}"}}' if metric.labels else ""
        lines.append(f"{metric.name}{labels} {figure}")
    return "\n".join(lines) + "\n"
