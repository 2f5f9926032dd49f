"""`penstock top`: rates and quantiles of what agents count, also of those that come and go."""

import json
import math
import random

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from tests.fakes.pages import running_pages
from typer.testing import CliRunner

from penstock.cli.main import app
from penstock.cli.top_nodes import Nodes, make_client, read_page
from penstock.cli.top_rules import WANTED, Labels, add_up, difference, make_report, quantile
from penstock.cli.top_view import WIDTH, render
from penstock.contract import metrics
from penstock.contract.metrics import WORKER_METRICS, Metric

HOSTILE = 'a"b\\c\nd\x1b[2J\x9b1A\u202ee[red]'
"""A name that would end a line, clear the screen, or turn the text around."""


class Agent:
    """An agent's counters, and the page that it answers with."""

    def __init__(self) -> None:
        """Begin at nothing."""
        self.registry = CollectorRegistry()
        self._made: dict[str, Counter | Gauge | Histogram] = {}
        self.is_away = False

    def _of(self, metric: Metric) -> Counter | Gauge | Histogram:
        if metric.name not in self._made:
            kinds = {"counter": Counter, "gauge": Gauge, "histogram": Histogram}
            more = {"buckets": metric.buckets} if metric.buckets else {}
            self._made[metric.name] = kinds[metric.kind](
                metric.name, metric.help, metric.labels, registry=self.registry, **more
            )
        return self._made[metric.name]

    def add(self, metric: Metric, value: float, /, **labels: str) -> None:
        """Count, observe or set."""
        made = self._of(metric)
        series = made.labels(**labels) if labels else made
        if isinstance(series, Histogram):
            series.observe(value)
        elif isinstance(series, Gauge):
            series.set(value)
        else:
            series.inc(value)

    def serve(self, organization: str, model: str = "m", *, times: int, seconds: float) -> None:
        """Count requests that took so long."""
        asked = {"operation": "chat", "outcome": "ok", "organization": organization}
        self.add(metrics.REQUESTS, times, model=model, **asked)
        used = {"organization": organization, "model": model, "usage_source": "engine"}
        self.add(metrics.INPUT_TOKENS, 10 * times, **used)
        self.add(metrics.OUTPUT_TOKENS, 5 * times, **used)
        for _ in range(times):
            self.add(metrics.ORGANIZATION_FIRST_TOKEN, seconds / 10, organization=organization)
            self.add(metrics.ORGANIZATION_DURATION, seconds, organization=organization)

    @property
    def page(self) -> str:
        """What it answers."""
        return generate_latest(self.registry).decode()


def answer(agents: dict[str, Agent]) -> httpx.MockTransport:
    """Return a network of agents by host."""

    def handle(request: httpx.Request) -> httpx.Response:
        agent = agents[request.url.host]
        if agent.is_away:
            message = "connection refused"
            raise httpx.ConnectError(message)
        return httpx.Response(200, text=agent.page)

    return httpx.MockTransport(handle)


class Clock:
    """Seconds that a test sets."""

    now_s = 100.0

    def __call__(self) -> float:
        """Return them."""
        return self.now_s


def test_all_that_is_looked_at_is_declared() -> None:
    """Every sample that is wanted belongs to a metric that workers report."""
    names = {metric.name for metric in WORKER_METRICS}
    assert {name.removesuffix("_bucket") for name in WANTED} <= names


def test_rates_are_of_all_agents_in_the_interval() -> None:
    """Counts of two agents are added up, by tenant, and divided by the seconds of the interval."""
    one, two, clock = Agent(), Agent(), Clock()
    one.serve("acme", times=1_000, seconds=9.0)
    urls = ["http://one:9464", "http://two:9464/metrics"]
    with make_client(urls, answer({"one": one, "two": two})) as client:
        nodes = Nodes(urls, client, clock)
        assert nodes.look() is None
        clock.now_s += 2
        one.serve("acme", times=10, seconds=0.1)
        two.serve("acme", times=10, seconds=0.1)
        two.serve("other", times=4, seconds=2.0)
        two.add(
            metrics.REQUESTS,
            2,
            organization="other",
            model="m",
            operation="chat",
            outcome="timeout",
        )
        two.add(metrics.LIMIT_REFUSED, 6, organization="other", metric="tokens")
        two.add(metrics.IN_FLIGHT, 3)
        values = nodes.look()
        nodes.close()
    assert values is not None
    report = make_report(values, "requests", 10)
    acme, other = report.views["tenants"]
    assert (acme.name, acme.requests, acme.input_tokens, acme.output_tokens) == (
        "acme",
        10,
        100,
        50,
    )
    assert (other.requests, other.errors, other.refused) == (3, 1, 3)
    assert acme.whole_p50 is not None
    assert 0.08 < acme.whole_p50 <= 0.16
    assert report.total.requests == 13
    assert report.total.in_flight == 3
    assert [row.name for row in make_report(values, "whole_p99", 1).views["tenants"]] == ["other"]


def test_an_agent_goes_and_comes_back() -> None:
    """One that is away is named; back with counters that begin at nothing, no rate is negative."""
    agent, clock = Agent(), Clock()
    agents = {"one": agent}
    with make_client(["http://one"], answer(agents)) as client:
        nodes = Nodes(["http://one"], client, clock)
        nodes.look()
        agent.is_away = True
        clock.now_s += 7
        assert nodes.look() is None
        assert nodes.nodes[0].fault == "connection refused"
        assert nodes.nodes[0].silent_s == 7
        agents["one"] = Agent()
        agents["one"].serve("acme", times=4, seconds=1.0)
        clock.now_s += 1
        assert nodes.look() is None
        agents["one"] = Agent()  # again, between two looks
        agents["one"].serve("acme", times=2, seconds=1.0)
        clock.now_s += 1
        values = nodes.look()
        nodes.close()
    assert values is not None
    assert make_report(values, "requests", 10).total.requests == 2
    assert nodes.nodes[0].fault is None


def test_no_name_steers_the_terminal_and_no_line_is_too_long() -> None:
    """Hostile names of tenants are shown escaped, and everything fits in 80 columns."""
    agent = Agent()
    for name in (HOSTILE, "x" * 500, "\x1b]0;title\x07"):
        agent.serve(name, name, times=3, seconds=70.0)
        agent.add(metrics.UPSTREAM_IN_FLIGHT, 123_456, upstream=name)
        agent.add(metrics.ERRORS, 1e9, **{"code": name, "class": "x", "side": "caller"})
    values = difference({}, read_page(agent.page), 0.001)
    lines = render(make_report(values, "name", 10), [f"{HOSTILE} does not answer"], WIDTH)
    assert all(line.isprintable() for line in lines)
    assert max(map(len, lines)) <= WIDTH
    assert any("\\n" in line for line in lines)


def test_rows_have_a_bound() -> None:
    """However many tenants there are, no more rows are shown than asked for."""
    values = {
        metrics.REQUESTS.name: {
            tuple({"organization": f"org_{number}", "outcome": "ok"}.items()): float(number)
            for number in range(1_000)
        }
    }
    report = make_report(values, "requests", 3)
    assert [row.name for row in report.views["tenants"]] == ["org_999", "org_998", "org_997"]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(0.0001, 100), min_size=1, max_size=60),
    st.sampled_from([0.01, 0.5, 0.9, 0.99, 1.0]),
)
def test_a_quantile_is_in_the_bucket_of_the_real_one(observed: list[float], part: float) -> None:
    """The estimate is between the bounds of the bucket in which the sorted list has it."""
    bounds = metrics.FIRST_TOKEN.buckets
    buckets = {bound: float(sum(value <= bound for value in observed)) for bound in bounds}
    buckets[math.inf] = float(len(observed))
    found = quantile(part, buckets)
    real = sorted(observed)[math.ceil(part * len(observed)) - 1]
    upper = next((bound for bound in bounds if real <= bound), None)
    lower = max((bound for bound in bounds if bound < real), default=0.0)
    assert found is not None
    assert lower <= found <= (bounds[-1] if upper is None else upper)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=8), st.randoms(use_true_random=False))
def test_rates_add_up_to_what_was_counted(counts: list[float], chance: random.Random) -> None:
    """Over scrapes of a counter that may begin again, rates times seconds are what was counted."""
    labels: Labels = (("organization", "acme"),)
    name, counted, value, rated = metrics.REQUESTS.name, 0.0, 0.0, 0.0
    before = {name: {labels: 0.0}}
    for each in counts:
        is_new = chance.random() < 0.3 and each < value
        value = each if is_new else value + each
        counted += each
        now = {name: {labels: value}}
        rated += add_up([difference(before, now, 2.0)])[name][labels] * 2.0
        before = now
    assert rated == pytest.approx(counted)


def test_scripts_get_one_document_and_terminals_elsewhere_plain_text() -> None:
    """`--once` ends after an interval, `--json` is one line; without an agent it ends with 1."""
    agent = Agent()
    agent.serve("acme", times=1, seconds=1.0)
    with running_pages(lambda _: agent.page) as url:
        words = ["top", "--metrics", url, "--once", "--interval", "0.2"]
        text = CliRunner().invoke(app, words)
        (line,) = CliRunner().invoke(app, [*words, "--json"]).stdout.splitlines()
    assert text.exit_code == 0
    assert "tenants" in text.stdout
    assert "\x1b" not in text.stdout
    told = json.loads(line)
    assert told["views"]["tenants"][0]["name"] == "acme"
    assert told["nodes"] == [
        {"url": f"{url}/metrics", "fault": None, "silent_s": told["nodes"][0]["silent_s"]}
    ]
    gone = CliRunner().invoke(app, words)
    assert gone.exit_code == 1
    assert "does not answer, last never" in gone.stdout
