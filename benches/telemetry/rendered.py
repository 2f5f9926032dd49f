"""Asks a real Prometheus what each graph and rule shows of a running instance under load.

usage: python benches/telemetry/run.py --rendered 3

`penstock dev` runs for some minutes with plain requests, streams and errors; Prometheus, as the
Debian package has it, scrapes it with our rules. What it answers is in `results/dashboards.md`.
"""

import itertools
import json
import shutil
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from benches.load.machine import REPOSITORY, describe_machine
from benches.load.processes import find_free_port
from deploy.dashboards import DASHBOARDS, RATE
from tests.fakes.dev_instance import DevInstance, running_dev

SCRAPE_S = 5
_ROWS = 6
"""Series of a graph that are shown."""
_RULES = REPOSITORY / "deploy" / "prometheus" / "penstock.rules.yml"


def render(minutes: float) -> bool:
    """Run all of it and write what was seen; return whether all rules are healthy."""
    with tempfile.TemporaryDirectory(prefix="penstock-rendered-") as name:
        folder = Path(name)
        with (
            running_dev(folder / "dev", "--model", "emulated-70b") as dev,
            _prometheus(folder, dev) as url,
            _load(dev),
        ):
            time.sleep(minutes * 60)
            rules = _ask(url, "rules", {})["groups"]
            graphs = [
                (page.title, panel.title, legend, _series(url, legend, expression))
                for page in DASHBOARDS
                for panel in page.panels
                for legend, expression in panel.series.items()
            ]
    sick = [rule["name"] for group in rules for rule in group["rules"] if rule["health"] != "ok"]
    firing = [
        rule["name"] for group in rules for rule in group["rules"] if rule.get("state") == "firing"
    ]
    text = _text(minutes, graphs, sick=sick, firing=firing)
    (REPOSITORY / "benches" / "results" / "dashboards.md").write_text(text)
    return not sick


@contextmanager
def _prometheus(folder: Path, dev: DevInstance) -> Iterator[str]:
    """Run Prometheus over a dev instance; yield its URL."""
    port = find_free_port()
    token = folder / "dev" / "secrets" / "node_token"
    jobs = {"penstock-node": dev.facts["metrics_url"], "penstock-control": dev.facts["control_url"]}
    config = {
        "global": {"scrape_interval": f"{SCRAPE_S}s", "evaluation_interval": f"{SCRAPE_S}s"},
        "rule_files": [str(_RULES)],
        "scrape_configs": [
            {
                "job_name": job,
                "authorization": {"credentials_file": str(token)},
                "static_configs": [{"targets": [urllib.parse.urlsplit(url).netloc]}],
            }
            for job, url in jobs.items()
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                shutil.which("prometheus") or "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def _load(dev: DevInstance) -> Iterator[None]:
    """Send plain requests, streams, a wrong key and an unknown model, until the block ends."""
    ended = threading.Event()
    key = dev.facts["api_key"]

    def send() -> None:
        for number in itertools.count():
            if ended.is_set():
                return
            is_odd = number % 20
            model = "no-such-model" if is_odd == 1 else "emulated-70b"
            bearer = "ps_live_wrong" if is_odd == 2 else key
            body = {
                "model": model,
                "messages": [{"role": "user", "content": "Hello there"}],
                "stream": number % 2 == 0,
                "max_tokens": 40,
            }
            asked = urllib.request.Request(  # noqa: S310 - an instance of ours
                f"{dev.api_url}/chat/completions",
                json.dumps(body).encode(),
                {"content-type": "application/json", "authorization": f"Bearer {bearer}"},
            )
            try:
                with urllib.request.urlopen(asked, timeout=60) as answer:  # noqa: S310
                    answer.read()
            except urllib.error.HTTPError as error:
                error.close()

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def _ask(url: str, what: str, parameters: dict[str, str]) -> Any:
    asked = f"{url}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
    with urllib.request.urlopen(asked, timeout=30) as answer:  # noqa: S310 - ours
        return json.loads(answer.read())["data"]


def _series(url: str, legend: str, expression: str) -> list[tuple[str, float]]:
    """Return what each series of a graph is called and its value now, the largest first."""
    found = _ask(url, "query", {"query": expression.replace(RATE, "1m")})["result"]
    named = []
    for series in found:
        name = legend
        for label, value in series["metric"].items():
            name = name.replace("{{" + label + "}}", value)
        named.append((name, float(series["value"][1])))
    return sorted(named, key=lambda item: -item[1])[:_ROWS]


def _text(
    minutes: float,
    graphs: list[tuple[str, str, str, list[tuple[str, float]]]],
    *,
    sick: list[str],
    firing: list[str],
) -> str:
    lines = [
        "# What the graphs show",
        "",
        *describe_machine(Path(tempfile.gettempdir())).lines(),
        "",
        f"`penstock dev` for {minutes:g} minutes with plain requests, streams, wrong keys and",
        f"unknown models, four at a time; Prometheus scraped it each {SCRAPE_S} s. Values are",
        "those of the end, rates over a minute; *nothing* is a graph of what did not happen.",
        "",
        f"Rules that Prometheus could not evaluate: {', '.join(sick) or 'none'}.",
        f"Alerts that fire: {', '.join(sorted(set(firing))) or 'none'}.",
    ]
    for page, rows in itertools.groupby(graphs, lambda row: row[0]):
        lines += ["", f"## {page}", "", "| graph | series | value |", "|---|---|--:|"]
        for _, panel, legend, series in rows:
            for name, value in series:
                lines.append(f"| {panel} | {name} | {value:.4g} |")
            if not series:
                lines.append(f"| {panel} | {legend} | *nothing* |")
    return "\n".join([*lines, ""])
