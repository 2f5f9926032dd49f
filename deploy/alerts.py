"""What operators are told of, in Prometheus' words: each alert, and how much may go wrong.

`deploy/generate.py` writes the rules from it; each alert has its page in `docs/runbooks`. A `page`
wakes somebody up, a `ticket` waits for the morning.
"""

from typing import Literal, NamedTuple

from docs.generate import error_codes

from penstock.kit.errors import Source

Severity = Literal["page", "ticket"]


class Alert(NamedTuple):
    """Something that is wrong as long as its expression yields anything."""

    name: str
    severity: Severity
    summary: str
    """One sentence; `{{ $labels.x }}` are labels of what the expression yields."""
    expression: str
    held_for: str = "0m"
    """How long it has to be so before anybody is told."""


class Objective(NamedTuple):
    """A share of something that may go wrong, and is told of when it would soon be used up."""

    name: str
    """Of its alerts."""
    record: str
    """Prefix of its recorded ratios."""
    ratio: str
    """The share that goes wrong within `WINDOW`, 0 to 1."""
    allowed: float
    """The share that may go wrong over 30 days."""
    summary: str


class Burn(NamedTuple):
    """A speed at which what is allowed is used up, that both windows must show.

    The long window says that it matters, the short one that it still goes on.
    """

    severity: Severity
    short: str
    long: str
    factor: float
    """Times as fast as would use it up in 30 days."""


# Source: "Alerting on SLOs", The Site Reliability Workbook, table 5-8.
BURNS = (
    Burn("page", "5m", "1h", 14.4),
    Burn("page", "30m", "6h", 6),
    Burn("ticket", "2h", "1d", 3),
    Burn("ticket", "6h", "3d", 1),
)

# What the gateway itself failed at: the codes say whose fault they are.
_OURS = "|".join(
    sorted(
        error.code
        for error in error_codes()
        if error.code.startswith("err:gateway:") and error.source is Source.INTERNAL
    )
)
_GATEWAY_FAILED = f'sum(rate(penstock_errors_total{{code=~"{_OURS}"}}[WINDOW]))'


def _slower(histogram: str, bound: str) -> str:
    """Return the share of a histogram above one of its bounds."""
    quick = f'sum(rate({histogram}_bucket{{le="{bound}"}}[WINDOW]))'
    return f"1 - {quick} / sum(rate({histogram}_count[WINDOW]))"


# `bool` makes it 0 or 1, so that its average is a share of time.
RECORDS = {"penstock:usage_late": "penstock_ship_lag_seconds > bool 60"}
"""What ratios are made of, where that is recorded first."""

ENGINE_ERRORS = Objective(
    "PenstockEngineErrors",
    "penstock:engine_errors",
    'sum by (model) (rate(penstock_requests_total{outcome=~"upstream_error|timeout"}[WINDOW]))'
    " / sum by (model) (rate(penstock_requests_total[WINDOW]))",
    0.01,
    "Engines fail too many requests for {{ $labels.model }}.",
)

OBJECTIVES = (
    Objective(
        "PenstockGatewayErrors",
        "penstock:gateway_errors",
        # Requests that were refused for a fault of theirs are neither good nor bad. There may be
        # none that ever reached an engine: then all failed.
        f"{_GATEWAY_FAILED} / "
        f"({_GATEWAY_FAILED} + (sum(rate(penstock_requests_total[WINDOW])) or vector(0)))",
        0.001,
        "The gateway itself fails too many requests.",
    ),
    ENGINE_ERRORS,
    Objective(
        "PenstockOverhead",
        "penstock:overhead_slow",
        _slower("penstock_overhead_seconds", "0.005"),
        0.01,
        "More than 1 in 100 requests wait over 5 ms in the gateway: its p99 is too high.",
    ),
    Objective(
        "PenstockFirstByte",
        "penstock:first_byte_slow",
        _slower("penstock_first_byte_seconds", "10.0"),
        0.05,
        "More than 1 in 20 requests wait over 10 s for their engine's first byte.",
    ),
    Objective(
        "PenstockUsageLate",
        "penstock:usage_late",
        "avg_over_time(penstock:usage_late[WINDOW])",
        0.01,
        "Usage of {{ $labels.instance }} reaches the control plane more than a minute late.",
    ),
)

_MONEY = (
    Alert(
        "PenstockLedgerViolations",
        "page",
        "The ledger holds rows that it should not have.",
        "penstock_ledger_violations > 0",
    ),
    Alert(
        "PenstockBudgetDifferences",
        "page",
        "Budgets do not say what their charges and holds say.",
        "penstock_budget_differences > 0",
    ),
    Alert(
        "PenstockUsageConflicts",
        "page",
        "Usage events are in quarantine: their ids were stored with another content.",
        "penstock_usage_conflicts > 0",
    ),
    Alert(
        "PenstockChoresFail",
        "ticket",
        "The control plane cannot do what it does by itself, such as to verify the ledger.",
        "penstock_chores_failing > 0",
        "10m",
    ),
    Alert(
        "PenstockUsageForged",
        "page",
        "A broker carries usage that none of our nodes wrote.",
        "increase(penstock_usage_forged_messages_total[1h]) > 0",
    ),
    Alert(
        "PenstockUsageRefused",
        "page",
        "{{ $labels.instance }} set usage aside that the control plane refused for ever.",
        "increase(penstock_ship_refused_events_total[1h]) > 0",
    ),
    Alert(
        "PenstockSettlementFaults",
        "ticket",
        "Usage was stored and could not be settled in full: {{ $labels.fault }}.",
        # A series that is born with its first fault has not increased yet.
        "increase(penstock_settlement_faults_total[1h]) > 0 or (penstock_settlement_faults_total"
        " > 0 unless penstock_settlement_faults_total offset 1h)",
    ),
    Alert(
        "PenstockUsageAbsurd",
        "ticket",
        "Engines reported figures that nobody believes; those requests were charged nothing.",
        'increase(penstock_usage_unrated_total{reason="absurd"}[1h]) > 0',
    ),
    Alert(
        "PenstockJournalDamaged",
        "page",
        "{{ $labels.instance }} found damage in a journal; usage behind it is not shipped.",
        "penstock_journal_damaged_segments_total > 0",
    ),
)

_NODES = (
    Alert(
        "PenstockTargetDown",
        "page",
        "{{ $labels.instance }} does not answer Prometheus.",
        'up{job=~"penstock-.+"} == 0',
        "2m",
    ),
    Alert(
        "PenstockNoWorkerReady",
        "page",
        "No worker of {{ $labels.instance }} takes requests.",
        "penstock_workers_ready == 0",
        "1m",
    ),
    Alert(
        "PenstockWorkersNotReady",
        "ticket",
        "Some workers of {{ $labels.instance }} do not take requests.",
        "penstock_workers_ready < penstock_workers",
        "5m",
    ),
    Alert(
        "PenstockWorkersRestart",
        "ticket",
        "Workers of {{ $labels.instance }} die again and again.",
        "increase(penstock_worker_restarts_total[30m]) > 2",
    ),
    Alert(
        "PenstockLoopLate",
        "ticket",
        "{{ $labels.process }} of {{ $labels.instance }} stands still again and again.",
        "histogram_quantile(0.99, sum by (instance, process, le) "
        "(rate(penstock_loop_lag_seconds_bucket[5m]))) > 0.1",
        "5m",
    ),
    Alert(
        "PenstockJournalFull",
        "page",
        "{{ $labels.instance }} has no space for its journal and refuses requests.",
        "penstock_journal_full > 0",
    ),
    Alert(
        "PenstockConfigRejected",
        "ticket",
        "{{ $labels.instance }} refused its penstock.yaml and serves from the last good one.",
        "penstock_config_rejected == 1",
        "2m",
    ),
    Alert(
        "PenstockFeedLost",
        "ticket",
        "{{ $labels.instance }} does not hear of changes of the configuration.",
        "penstock_feed_lost == 1",
        "2m",
    ),
    Alert(
        "PenstockSnapshotOld",
        "page",
        "{{ $labels.instance }} serves from a configuration that is 15 minutes old or more.",
        "penstock_feed_age_seconds > 900",
    ),
    Alert(
        "PenstockCredentialsUnreadable",
        "page",
        "Credentials do not open on {{ $labels.instance }}: requests that need them fail.",
        "penstock_credentials_unreadable > 0",
        "2m",
    ),
    Alert(
        "PenstockCredentialsWaiting",
        "ticket",
        "{{ $labels.instance }} cannot ask the keeper of its key-encryption key.",
        "penstock_credentials_waiting > 0",
        "5m",
    ),
    Alert(
        "PenstockLimitsAuthorityDown",
        "ticket",
        "{{ $labels.instance }} gives from its share: the shared authority over limits is away.",
        "penstock_limits_authority_up == 0",
        "2m",
    ),
    Alert(
        "PenstockTelemetryLost",
        "ticket",
        "Spans or metrics of {{ $labels.instance }} do not reach the collector.",
        "sum by (instance) (rate(penstock_otlp_lost_total[10m])) > 0",
        "10m",
    ),
)

_ENGINES = (
    Alert(
        "PenstockUpstreamDown",
        "page",
        "No endpoint of {{ $labels.upstream }} is ready.",
        "max by (upstream) (penstock_endpoint_ready) == 0",
        "2m",
    ),
    Alert(
        "PenstockEndpointNotReady",
        "ticket",
        "{{ $labels.endpoint }} of {{ $labels.upstream }} is not ready.",
        # Also where nodes disagree: one that cannot reach it is enough.
        "min by (upstream, endpoint) (penstock_endpoint_ready) == 0",
        "10m",
    ),
    Alert(
        "PenstockDiscoveryFails",
        "ticket",
        "{{ $labels.source }} does not say which endpoints there are; the last ones are used.",
        "penstock_discovery_age_seconds > 120",
        "2m",
    ),
    Alert(
        "PenstockNoEndpoints",
        "page",
        "{{ $labels.source }} has no endpoints: requests for its models fail.",
        "penstock_discovery_endpoints == 0",
        "2m",
    ),
)

ALERTS = {"penstock-money": _MONEY, "penstock-nodes": _NODES, "penstock-engines": _ENGINES}
"""Alerts that need no history, by their group."""
