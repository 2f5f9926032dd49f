"""What operators look at: dashboards for Grafana, as rows of panels.

`deploy/generate.py` writes them. A panel asks one thing, and has a line for each series that
answers it.
"""

from typing import Any, NamedTuple

from deploy.alerts import ENGINE_ERRORS

RATE = "$__rate_interval"
"""Grafana's word for a window that holds some scrapes."""
_WIDTH, _HEIGHT, _IN_A_ROW = 24, 8, 3


class Panel(NamedTuple):
    """A graph."""

    title: str
    unit: str
    """As Grafana calls it: `short`, `s`, `bytes`, `reqps`, `percentunit`, `cps`."""
    series: dict[str, str]
    """Expressions by what the legend says."""


class Dashboard(NamedTuple):
    """A page of graphs."""

    name: str
    title: str
    panels: tuple[Panel, ...]


def _rate(metric: str, *by: str) -> str:
    grouped = f" by ({', '.join(by)})" if by else ""
    return f"sum{grouped} (rate({metric}[{RATE}]))"


def _quantiles(histogram: str) -> dict[str, str]:
    buckets = _rate(f"{histogram}_bucket", "le")
    return {f"p{q * 100:g}": f"histogram_quantile({q}, {buckets})" for q in (0.5, 0.95, 0.99)}


def _p95(histogram: str, *by: str) -> str:
    return f"histogram_quantile(0.95, {_rate(f'{histogram}_bucket', *by, 'le')})"


def _largest(expression: str) -> str:
    return f"topk(10, {expression})"


_OVERVIEW = Dashboard(
    "penstock-overview",
    "Penstock: overview",
    (
        Panel(
            "Requests, by outcome",
            "reqps",
            {"{{outcome}}": _rate("penstock_requests_total", "outcome")},
        ),
        Panel("Errors, by code", "cps", {"{{code}}": _rate("penstock_errors_total", "code")}),
        Panel(
            "Errors, by whose fault they are",
            "cps",
            {"{{side}} {{class}}": _rate("penstock_errors_total", "side", "class")},
        ),
        Panel("In flight", "short", {"requests": "sum(penstock_requests_in_flight)"}),
        Panel("What the gateway adds", "s", _quantiles("penstock_overhead_seconds")),
        Panel("First byte of engines", "s", _quantiles("penstock_first_byte_seconds")),
        Panel(
            "First token of streams",
            "s",
            _quantiles("gen_ai_server_time_to_first_token_seconds"),
        ),
        Panel("Whole requests", "s", _quantiles("gen_ai_server_request_duration_seconds")),
        Panel(
            "Tokens",
            "cps",
            {
                "input": _rate("penstock_input_tokens_total"),
                "output": _rate("penstock_output_tokens_total"),
            },
        ),
        Panel("Usage behind", "s", {"{{instance}}": "penstock_ship_lag_seconds"}),
        Panel(
            "What must be 0",
            "short",
            {
                "ledger": "max(penstock_ledger_violations)",
                "budgets": "max(penstock_budget_differences)",
                "quarantine": "max(penstock_usage_conflicts)",
                "chores": "max(penstock_chores_failing)",
            },
        ),
    ),
)

_TENANTS = Dashboard(
    "penstock-tenants",
    "Penstock: tenants, the ten largest",
    (
        Panel(
            "Requests",
            "reqps",
            {"{{organization}}": _largest(_rate("penstock_requests_total", "organization"))},
        ),
        Panel(
            "Requests that did not end well",
            "reqps",
            {
                "{{organization}} {{outcome}}": _largest(
                    _rate('penstock_requests_total{outcome!="ok"}', "organization", "outcome")
                )
            },
        ),
        Panel(
            "Refused by limits and budgets",
            "cps",
            {"{{organization}}": _largest(_rate("penstock_limit_refused_total", "organization"))},
        ),
        Panel(
            "First token, p95",
            "s",
            {
                "{{organization}}": _largest(
                    _p95("penstock_organization_first_token_seconds", "organization")
                )
            },
        ),
        Panel(
            "Whole requests, p95",
            "s",
            {
                "{{organization}}": _largest(
                    _p95("penstock_organization_request_duration_seconds", "organization")
                )
            },
        ),
        Panel(
            "Fullest limit, used and leased",
            "percentunit",
            {"{{organization}}": _largest("max by (organization) (penstock_limits_used_ratio)")},
        ),
        Panel(
            "Input tokens",
            "cps",
            {"{{organization}}": _largest(_rate("penstock_input_tokens_total", "organization"))},
        ),
        Panel(
            "Output tokens",
            "cps",
            {"{{organization}}": _largest(_rate("penstock_output_tokens_total", "organization"))},
        ),
        Panel(
            "Charged an hour",
            "short",
            {
                "{{organization}} {{currency}}": _largest(
                    f"3600 * {_rate('penstock_charges_total', 'organization', 'currency')}"
                )
            },
        ),
    ),
)

_MODELS = Dashboard(
    "penstock-models",
    "Penstock: models and engines",
    (
        Panel("Requests", "reqps", {"{{model}}": _rate("penstock_requests_total", "model")}),
        Panel(
            "Share that engines fail at",
            "percentunit",
            {"{{model}}": ENGINE_ERRORS.ratio.replace("WINDOW", RATE)},
        ),
        Panel(
            "First token, p95",
            "s",
            {
                "{{gen_ai_request_model}}": _p95(
                    "gen_ai_server_time_to_first_token_seconds", "gen_ai_request_model"
                )
            },
        ),
        Panel(
            "Time per output token, p95",
            "s",
            {
                "{{gen_ai_request_model}}": _p95(
                    "gen_ai_server_time_per_output_token_seconds", "gen_ai_request_model"
                )
            },
        ),
        Panel(
            "Whole requests, p95",
            "s",
            {"{{upstream}}": _p95("penstock_upstream_request_duration_seconds", "upstream")},
        ),
        Panel(
            "In flight",
            "short",
            {
                "{{upstream}}": "sum by (upstream) (penstock_upstream_requests_in_flight)",
                "{{upstream}}, waiting": "sum by (upstream) (penstock_upstream_requests_waiting)",
            },
        ),
        Panel(
            "In flight, by model",
            "short",
            {"{{model}}": "sum by (model) (penstock_model_requests_in_flight)"},
        ),
        Panel(
            "Requests of engines, by outcome",
            "reqps",
            {
                "{{upstream}} {{outcome}}": _rate(
                    "penstock_upstream_requests_total", "upstream", "outcome"
                )
            },
        ),
        Panel(
            "Output tokens", "cps", {"{{model}}": _rate("penstock_output_tokens_total", "model")}
        ),
        Panel(
            "Tokens that are part of others",
            "cps",
            {"{{part}}": _rate("penstock_token_parts_total", "part")},
        ),
        Panel(
            "Given up for another endpoint",
            "cps",
            {"{{upstream}} {{reason}}": _rate("penstock_retries_total", "upstream", "reason")},
        ),
        Panel(
            "Endpoints that are ready",
            "short",
            {
                "{{upstream}}": "sum by (upstream) "
                "(max by (upstream, endpoint) (penstock_endpoint_ready))"
            },
        ),
        Panel(
            "How strained engines are",
            "percentunit",
            {"{{upstream}} {{endpoint}}": "max by (upstream, endpoint) (penstock_endpoint_strain)"},
        ),
        Panel(
            "Prompts, by how their beginnings were known",
            "reqps",
            {
                "{{upstream}} {{choice}}": _rate(
                    "penstock_prefix_choices_total", "upstream", "choice"
                )
            },
        ),
        Panel(
            "Connections to engines",
            "short",
            {"{{upstream}}": "sum by (upstream) (penstock_upstream_connections)"},
        ),
        Panel(
            "Endpoints found",
            "short",
            {"{{source}}": "max by (source) (penstock_discovery_endpoints)"},
        ),
        Panel(
            "Age of what sources said",
            "s",
            {"{{source}}": "max by (source) (penstock_discovery_age_seconds)"},
        ),
        Panel(
            "Output tokens, by where the figure is from",
            "cps",
            {"{{usage_source}}": _rate("penstock_output_tokens_total", "usage_source")},
        ),
    ),
)

_LIMITS = Dashboard(
    "penstock-limits",
    "Penstock: limits and money",
    (
        Panel(
            "Refused by limits and budgets",
            "cps",
            {
                "{{organization}} {{metric}}": _rate(
                    "penstock_limit_refused_total", "organization", "metric"
                )
            },
        ),
        Panel(
            "Exceeded and let through",
            "cps",
            {
                "{{organization}} {{metric}} {{enforcement}}": _rate(
                    "penstock_limit_exceeded_total", "organization", "metric", "enforcement"
                )
            },
        ),
        Panel(
            "Let through, since nobody answered",
            "cps",
            {"{{enforcement}}": _rate("penstock_limit_unanswered_total", "enforcement")},
        ),
        Panel("Waits for limits", "s", _quantiles("penstock_limit_wait_seconds")),
        Panel("Waiting for limits", "short", {"{{instance}}": "penstock_limit_waiting"}),
        Panel(
            "Let in, and ended",
            "reqps",
            {"{{organization}}": _largest(_rate("penstock_limit_allowed_total", "organization"))},
        ),
        Panel(
            "Leases, as a share of the limit",
            "percentunit",
            _quantiles("penstock_limits_lease_ratio"),
        ),
        Panel(
            "Leases",
            "cps",
            {
                "asked for": _rate("penstock_limits_wants_total"),
                "from a node's share": _rate("penstock_limits_share_leases_total"),
                "not decided": _rate("penstock_limits_unanswered_total"),
            },
        ),
        Panel(
            "Shared authority answers",
            "short",
            {"{{instance}}": "penstock_limits_authority_up"},
        ),
        Panel(
            "Holds that failed or expired",
            "cps",
            {
                "no answer": _rate("penstock_hold_failures_total"),
                "expired": _rate("penstock_holds_expired_total"),
            },
        ),
        Panel(
            "Not settled in full",
            "cps",
            {"{{fault}}": _rate("penstock_settlement_faults_total", "fault")},
        ),
        Panel(
            "Rated at nothing",
            "cps",
            {"{{reason}}": _rate("penstock_usage_unrated_total", "reason")},
        ),
    ),
)

_NODE = Dashboard(
    "penstock-node",
    "Penstock: nodes",
    (
        Panel(
            "Workers",
            "short",
            {
                "{{instance}} connected": "penstock_workers",
                "{{instance}} ready": "penstock_workers_ready",
            },
        ),
        Panel(
            "Workers that died",
            "short",
            {"{{instance}}": "increase(penstock_worker_restarts_total[1h])"},
        ),
        Panel("Connections of callers", "short", {"{{instance}}": "penstock_connections"}),
        Panel(
            "Written to journals",
            "Bps",
            {"{{instance}}": _rate("penstock_journal_bytes_total", "instance")},
        ),
        Panel(
            "Syncs of journals",
            "cps",
            {"{{instance}}": _rate("penstock_journal_syncs_total", "instance")},
        ),
        Panel(
            "Syncs of journals, p95",
            "s",
            {"{{instance}}": _p95("penstock_journal_sync_seconds", "instance")},
        ),
        Panel(
            "Loops that are late, p95",
            "s",
            {"{{instance}} {{process}}": _p95("penstock_loop_lag_seconds", "instance", "process")},
        ),
        Panel(
            "Time that garbage takes",
            "percentunit",
            {
                "{{instance}} {{process}}": _rate(
                    "penstock_gc_pause_seconds_sum", "instance", "process"
                )
            },
        ),
        Panel("Memory", "bytes", {"{{instance}} {{process}}": "penstock_process_memory_bytes"}),
        Panel(
            "Processor time",
            "percentunit",
            {
                "{{instance}} {{process}}": _rate(
                    "penstock_process_cpu_seconds_total", "instance", "process"
                )
            },
        ),
        Panel("Open files", "short", {"{{instance}} {{process}}": "penstock_process_open_files"}),
        Panel("Not shipped yet", "bytes", {"{{instance}}": "penstock_journal_unshipped_bytes"}),
        Panel(
            "Deliveries that failed",
            "cps",
            {"{{instance}}": _rate("penstock_ship_failures_total", "instance")},
        ),
        Panel("Age of the configuration", "s", {"{{instance}}": "penstock_feed_age_seconds"}),
        Panel(
            "Credentials",
            "short",
            {
                "{{instance}} open": "penstock_credentials_open",
                "{{instance}} unreadable": "penstock_credentials_unreadable",
                "{{instance}} waiting": "penstock_credentials_waiting",
            },
        ),
    ),
)

DASHBOARDS = (_OVERVIEW, _TENANTS, _MODELS, _LIMITS, _NODE)


def as_grafana_reads(dashboard: Dashboard) -> dict[str, Any]:
    """Return a dashboard in Grafana's form; which Prometheus is asked can be chosen there."""
    return {
        "uid": dashboard.name,
        "title": dashboard.title,
        "tags": ["penstock"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {
            "list": [
                {"name": "source", "label": "Source", "type": "datasource", "query": "prometheus"}
            ]
        },
        "panels": [_graph(number, panel) for number, panel in enumerate(dashboard.panels)],
    }


def _graph(number: int, panel: Panel) -> dict[str, Any]:
    row, column = divmod(number, _IN_A_ROW)
    width = _WIDTH // _IN_A_ROW
    source = {"type": "prometheus", "uid": "${source}"}
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": panel.title,
        "datasource": source,
        "gridPos": {"x": column * width, "y": row * _HEIGHT, "w": width, "h": _HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {
                "refId": chr(ord("A") + place),
                "datasource": source,
                "expr": expr,
                "legendFormat": legend,
            }
            for place, (legend, expr) in enumerate(panel.series.items())
        ],
    }
