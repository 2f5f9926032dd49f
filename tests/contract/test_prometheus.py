"""What is delivered for Prometheus, as its own `promtool` judges it, where there is one."""

import shutil
import subprocess
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from deploy.alerts import ALERTS, BURNS, OBJECTIVES
from deploy.dashboards import DASHBOARDS, RATE
from deploy.generate import ROOT

from penstock.contract.exposition import Family, write_page
from penstock.contract.metrics import PROCESS_METRICS, WORKER_METRICS
from penstock.contract.node import HistogramSample
from penstock.node.metrics import AGENT_METRICS

FOLDER = ROOT / "deploy" / "prometheus"
RULES = FOLDER / "penstock.rules.yml"
PROMTOOL = shutil.which("promtool") or ""
promtool = pytest.mark.skipif(not PROMTOOL, reason="there is no promtool here")

PAGE, TICKET = "page", "ticket"
BOTH = (PAGE, TICKET)


class Case(NamedTuple):
    """Series, a value a minute in promtool's notation, and what fires when."""

    alert: str
    series: dict[str, str]
    fires: dict[int, tuple[str, ...]]
    """Severities by minute; of this alert, and nobody else's."""


WELL = 'penstock_requests_total{model="m",outcome="ok"}'
OURS = 'penstock_errors_total{code="err:gateway:limits:unavailable"}'
# Well for 20 minutes, then bad for 40, then well.
BURST = {15: (), 40: BOTH, 110: (TICKET,)}


def burst(good: str, bad: str) -> dict[str, str]:
    """Return counters: one that always grows, and one that grows for 40 minutes."""
    return {good: "0+60x120", bad: "0x20 60+60x39 2400x60"}


def simple(alert: str, severity: str, series: str, values: str, held: int = 0, **also: str) -> Case:
    """Return a case of a series that is well until minute 3, bad for 16 minutes, and well again."""
    at = 4 + held
    fires: dict[int, tuple[str, ...]] = {2: (), at: (severity,), 30: ()}
    if held:
        fires[at - 2] = ()
    return Case(alert, {series: values, **also}, fires)


def gauge(alert: str, severity: str, series: str, held: int = 0, *, good: int = 0) -> Case:
    """Return a case of a figure that is 1 more, or less, than it should be, for a while."""
    bad = 1 - good
    return simple(alert, severity, series, f"{good}x3 {bad}x15 {good}x20", held)


NODE = '{instance="n1",job="penstock-node"}'
OTHER = '{instance="n2",job="penstock-node"}'

CASES = (
    Case(
        "PenstockGatewayErrors",
        {
            **burst(
                'penstock_requests_total{model="another",outcome="ok"}',
                OURS,
            ),
            # What callers do wrong is nobody's alarm, however much it is.
            'penstock_errors_total{code="err:gateway:auth:key_invalid"}': "0+9000x120",
        },
        BURST,
    ),
    Case(  # nothing ever reached an engine
        "PenstockGatewayErrors",
        {'penstock_errors_total{code="err:gateway:upstream:unusable"}': "0+5x20"},
        {10: BOTH},
    ),
    # 1 in 1,000 may fail. After six good hours, a bad minute is 1.6 % of an hour, more than 14.4
    # times that, and 0.3 % of six, less than 6 times. Then 1.4 % of an hour, less than both.
    Case(
        "PenstockGatewayErrors",
        {WELL: "0+600x450", OURS: "0x360 580x90"},
        {360: (), 363: BOTH, 370: (TICKET,)},
    ),
    Case(
        "PenstockGatewayErrors",
        {WELL: "0+600x450", OURS: "0x360 500x90"},
        {360: (), 364: (TICKET,)},
    ),
    # All the time 0.65 %, more than 6 times and less than 14.4; 0.55 %, less than 6; about 0.1 %.
    Case("PenstockGatewayErrors", {WELL: "0+9935x30", OURS: "0+65x30"}, {20: BOTH}),
    Case("PenstockGatewayErrors", {WELL: "0+9945x30", OURS: "0+55x30"}, {21: (TICKET,)}),
    Case("PenstockGatewayErrors", {WELL: "0+99895x30", OURS: "0+105x30"}, {22: (TICKET,)}),
    Case("PenstockGatewayErrors", {WELL: "0+99905x30", OURS: "0+95x30"}, {23: ()}),
    Case(
        "PenstockEngineErrors",
        {
            **burst(
                WELL,
                'penstock_requests_total{model="m",outcome="timeout"}',
            ),
            'penstock_requests_total{model="other",outcome="ok"}': "0+60x120",
            'penstock_requests_total{model="other",outcome="caller_gone"}': "0+60x120",
        },
        BURST,
    ),
    Case(
        "PenstockOverhead",
        {
            'penstock_overhead_seconds_bucket{le="0.005"}': "0+60x20 1200x39 1260+60x60",
            "penstock_overhead_seconds_count": "0+60x120",
        },
        BURST,
    ),
    Case(
        "PenstockFirstByte",
        {
            'penstock_first_byte_seconds_bucket{le="10.0"}': "0+60x20 1200x39 1260+60x60",
            "penstock_first_byte_seconds_count": "0+60x120",
        },
        BURST,
    ),
    Case(
        "PenstockUsageLate",
        {
            f"penstock_ship_lag_seconds{NODE}": "5x20 300x40 5x60",
            f"penstock_ship_lag_seconds{OTHER}": "59x120",
        },
        BURST,
    ),
    gauge("PenstockLedgerViolations", PAGE, "penstock_ledger_violations"),
    gauge("PenstockBudgetDifferences", PAGE, "penstock_budget_differences"),
    gauge("PenstockUsageConflicts", PAGE, "penstock_usage_conflicts"),
    gauge("PenstockChoresFail", TICKET, "penstock_chores_failing", 10),
    gauge("PenstockJournalDamaged", PAGE, f"penstock_journal_damaged_segments_total{NODE}"),
    gauge("PenstockJournalFull", PAGE, f"penstock_journal_full{NODE}"),
    gauge("PenstockTargetDown", PAGE, f"up{NODE}", 2, good=1),
    gauge("PenstockConfigRejected", TICKET, f"penstock_config_rejected{NODE}", 2),
    gauge("PenstockFeedLost", TICKET, f"penstock_feed_lost{NODE}", 2),
    gauge("PenstockCredentialsUnreadable", PAGE, f"penstock_credentials_unreadable{NODE}", 2),
    gauge("PenstockCredentialsWaiting", TICKET, f"penstock_credentials_waiting{NODE}", 5),
    gauge("PenstockLimitsAuthorityDown", TICKET, f"penstock_limits_authority_up{NODE}", 2, good=1),
    gauge("PenstockNoEndpoints", PAGE, 'penstock_discovery_endpoints{source="s"}', 2, good=1),
    simple("PenstockSnapshotOld", PAGE, f"penstock_feed_age_seconds{NODE}", "20x3 901x15 3x20"),
    simple(
        "PenstockDiscoveryFails",
        TICKET,
        'penstock_discovery_age_seconds{source="s"}',
        "9x3 121x15 0x20",
        2,
    ),
    simple(
        "PenstockNoWorkerReady",
        PAGE,
        f"penstock_workers_ready{NODE}",
        "2x3 0x15 2x20",
        1,
    ),
    simple(
        "PenstockWorkersNotReady",
        TICKET,
        f"penstock_workers_ready{NODE}",
        "2x3 1x15 2x20",
        5,
        **{f"penstock_workers{NODE}": "2x40"},
    ),
    Case(
        "PenstockWorkersRestart",
        {
            f"penstock_worker_restarts_total{NODE}": "0x3 1x1 2x1 4x60",
            f"penstock_worker_restarts_total{OTHER}": "0x3 1x60",
        },
        {3: (), 15: (TICKET,), 60: ()},
    ),
    Case(
        "PenstockLoopLate",
        {
            f'penstock_loop_lag_seconds_bucket{{{NODE[1:-1]},process="p",le="{bound}"}}': values
            for bound, values in (
                ("0.1", "0+600x20 12000+540x20 22800+600x60"),
                ("0.25", "0+600x100"),
                ("+Inf", "0+600x100"),
            )
        },
        {15: (), 30: (TICKET,), 60: ()},
    ),
    Case(
        "PenstockTelemetryLost",
        {
            f'penstock_otlp_lost_total{NODE[:-1]},reason="gave_up",signal="traces"}}': (
                "0x3 0+50x30 1500x60"
            ),
            f'penstock_otlp_lost_total{OTHER[:-1]},reason="gave_up",signal="traces"}}': "7x93",
        },
        {3: (), 10: (), 18: (TICKET,), 50: ()},
    ),
    Case(
        "PenstockUpstreamDown",
        {'penstock_endpoint_ready{endpoint="a",upstream="u"}': "1x3 0x8 1x20"},
        {3: (), 7: (PAGE,), 30: ()},
    ),
    Case(
        "PenstockEndpointNotReady",
        {
            'penstock_endpoint_ready{endpoint="a",upstream="u",instance="n1"}': "1x3 0x20 1x20",
            'penstock_endpoint_ready{endpoint="a",upstream="u",instance="n2"}': "1x44",
            'penstock_endpoint_ready{endpoint="b",upstream="u",instance="n1"}': "1x44",
        },
        {12: (), 15: (TICKET,), 40: ()},
    ),
    Case(
        "PenstockUsageForged",
        {"penstock_usage_forged_messages_total": "0x3 1x90"},
        {3: (), 6: (PAGE,), 80: ()},
    ),
    Case(
        "PenstockUsageRefused",
        {f"penstock_ship_refused_events_total{NODE}": "0x3 1x90"},
        {3: (), 6: (PAGE,), 80: ()},
    ),
    Case(
        "PenstockUsageAbsurd",
        {
            'penstock_usage_unrated_total{reason="absurd"}': "0x3 1x90",
            'penstock_usage_unrated_total{reason="unpriced"}': "0+1x90",
        },
        {3: (), 6: (TICKET,), 80: ()},
    ),
    Case(  # the series begins with its first fault
        "PenstockSettlementFaults",
        {'penstock_settlement_faults_total{fault="hold_unknown"}': "_x3 1x90"},
        {2: (), 6: (TICKET,), 80: ()},
    ),
    Case(
        "PenstockSettlementFaults",
        {'penstock_settlement_faults_total{fault="hold_unknown"}': "1x80 2x20"},
        {70: (), 85: (TICKET,)},
    ),
)


def as_promtool_reads(cases: Sequence[Case]) -> dict[str, object]:
    """Return cases that are looked at in the same minutes as one of its tests."""
    series = [item for case in cases for item in case.series.items()]
    assert len(dict(series)) == len(series)
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series],
        "promql_expr_test": [
            {
                "expr": 'count by (alertname, severity) (ALERTS{alertstate="firing"})',
                "eval_time": f"{minute}m",
                "exp_samples": [
                    {"labels": f'{{alertname="{case.alert}",severity="{each}"}}', "value": 1}
                    for case in cases
                    for each in case.fires[minute]
                ],
            }
            for minute in cases[0].fires
        ],
    }


def run(*words: str | Path, page: bytes | None = None) -> None:
    """Run promtool and expect that it is content."""
    done = subprocess.run([PROMTOOL, *words], input=page, capture_output=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr).decode()


def test_each_alert_is_seen_to_fire_and_to_be_silent() -> None:
    """Every alert has a case in which it fires, with each severity, and is silent once."""
    wanted = {(one.name, one.severity) for group in ALERTS.values() for one in group}
    wanted |= {(one.name, burn.severity) for one in OBJECTIVES for burn in BURNS}
    seen = {
        (case.alert, severity) for case in CASES for at in case.fires.values() for severity in at
    }
    assert seen == wanted
    assert {case.alert for case in CASES if () in case.fires.values()} == {n for n, _ in wanted}


@promtool
def test_prometheus_takes_the_rules() -> None:
    """Rules and the example of a configuration are valid for Prometheus."""
    run("check", "rules", RULES)
    run("check", "config", "--syntax-only", FOLDER / "prometheus.yml")


@promtool
def test_prometheus_takes_the_graphs(tmp_path: Path) -> None:
    """What dashboards ask for is valid for Prometheus."""
    asked = [each for page in DASHBOARDS for panel in page.panels for each in panel.series.values()]
    rules = [
        {"record": f"asked:{number}", "expr": expression.replace(RATE, "5m")}
        for number, expression in enumerate(asked)
    ]
    file = tmp_path / "graphs.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "graphs", "rules": rules}]}), "utf-8")
    run("check", "rules", file)


@promtool
def test_alerts_fire_when_they_must(tmp_path: Path) -> None:
    """Each alert fires on what it is for, alone, and not before it is so or when it is over."""
    file = tmp_path / "cases.yml"
    together = defaultdict(list)  # each test costs a second or so
    for case in CASES:
        together[tuple(case.fires)].append(case)
    tests = [as_promtool_reads(cases) for cases in together.values()]
    document = {"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests}
    file.write_text(yaml.safe_dump(document), encoding="utf-8")
    run("test", "rules", file)


@promtool
def test_prometheus_takes_the_page_of_a_node() -> None:
    """Nothing that a node shows is against Prometheus' rules for names, kinds and help."""
    families = [
        Family(
            metric,
            {} if metric.buckets else {metric.labels: 1.0},
            {metric.labels: HistogramSample(metric.name, metric.labels, counts, 1.0)},
        )
        for metric in (*WORKER_METRICS, *AGENT_METRICS, *PROCESS_METRICS)
        for counts in [(1,) * (len(metric.buckets) + 1)]
    ]
    run("check", "metrics", page="".join(write_page(families)).encode())
