"""Checks of a running instance: does each part answer, and does usage get through?"""

import re
from collections.abc import Iterable
from pathlib import Path

import httpx

from penstock.cli.checks.model import Finding, Verdict
from penstock.cli.instance import Facts
from penstock.cli.launch import ports

LAG_NOTE_S = 10.0
LAG_FAILED_S = 120.0
SOURCE_NOTE_S = 120.0
"""A source says something each minute at the least when all is well."""
_TIMEOUT_S = 5.0
_SAMPLE = re.compile(r"^(?P<name>[a-z_]+)(?:\{[^}]*\})? (?P<value>\S+)$", re.MULTILINE)

_READY = re.compile(
    r'^penstock_endpoint_ready\{endpoint="(?P<at>[^"]*)",upstream="(?P<upstream>[^"]*)"\} '
    r"(?P<ready>\S+)$",
    re.MULTILINE,
)
_AGE = re.compile(
    r'^penstock_discovery_age_seconds\{source="(?P<source>[^"]*)"\} (?P<age>\S+)$', re.MULTILINE
)


def check_ports(wanted: dict[str, int]) -> Finding:
    """Look whether `penstock dev` would find its ports free.

    Args:
        wanted: Port by the option that sets it.
    """
    busy = {option: port for option, port in wanted.items() if not ports.is_free(port)}
    if not busy:
        return Finding("Ports", Verdict.OK, f"{_list(wanted.values())} are free")
    told = []
    for option, port in busy.items():
        holder = ports.find_holder(port)
        told.append(f"{port} ({option}) is used" + (f" by process {holder}" if holder else ""))
    remedy = f"Stop what listens there, or choose other ports: {' '.join(busy)} PORT."
    return Finding("Ports", Verdict.FAILED, "; ".join(told), remedy)


def check_instance(facts: Facts, transport: httpx.BaseTransport | None = None) -> list[Finding]:
    """Look at each part of the instance that `dev.json` tells of.

    Args:
        facts: What `dev.json` says.
        transport: Replaces the network in tests.
    """
    logs = Path(facts.data_dir) / "logs"
    with httpx.Client(timeout=_TIMEOUT_S, trust_env=False, transport=transport) as client:
        gateway = check_answers(
            client,
            "Gateway",
            [f"{facts.base_url}/health/{what}" for what in ("live", "ready")],
            logs,
        )
        return [
            gateway,
            check_answers(client, "Control", [f"{facts.control_url}/health/ready"], logs),
            _check_models(client, facts),
            *_check_metrics(client, facts, logs),
        ]


def check_answers(client: httpx.Client, name: str, urls: list[str], logs: Path) -> Finding:
    """Look whether every URL answers 200."""
    for url in urls:
        try:
            status = client.get(url).status_code
        except httpx.HTTPError as error:
            detail = f"{url} does not answer: {str(error) or type(error).__name__}"
            return Finding(name, Verdict.FAILED, detail, f"See the logs in {logs}.")
        if status != httpx.codes.OK:
            detail = f"{url} answers {status}"
            return Finding(name, Verdict.FAILED, detail, f"See the logs in {logs}.")
    return Finding(name, Verdict.OK, f"{urls[-1]} answers")


def _check_models(client: httpx.Client, facts: Facts) -> Finding:
    url = f"{facts.base_url}/v1/models"
    try:
        answer = client.get(url, headers={"authorization": f"Bearer {facts.api_key}"})
        answer.raise_for_status()
        names = [str(model["id"]) for model in answer.json()["data"]]
    except httpx.HTTPStatusError as error:
        detail = f"GET {url} with the key of dev.json answers {error.response.status_code}"
        remedy = f"Look whether {facts.config} has that key; start `penstock dev` again."
        return Finding("Models", Verdict.FAILED, detail, remedy)
    except httpx.HTTPError as error:
        detail = f"GET {url} failed: {str(error) or type(error).__name__}"
        return Finding("Models", Verdict.FAILED, detail, "See Gateway.")
    except (ValueError, KeyError, TypeError):
        detail = f"what answers GET {url} is no Penstock"
        return Finding("Models", Verdict.FAILED, detail, "Look what listens on that port.")
    if not names:
        remedy = f"Add an alias to {facts.config}."
        return Finding("Models", Verdict.NOTE, "the key may use none", remedy)
    return Finding("Models", Verdict.OK, _list(names))


def _check_metrics(client: httpx.Client, facts: Facts, logs: Path) -> list[Finding]:
    url = f"{facts.metrics_url}/metrics"
    found = check_answers(client, "Metrics", [url], logs)
    if found.verdict is not Verdict.OK:
        return [found]
    try:
        page = client.get(url).text
    except httpx.HTTPError:
        return [found]
    values = read_samples(page)
    return [
        found,
        _check_lag(values),
        _check_journal(values),
        _check_endpoints(page),
        *_check_sources(page),
    ]


def _check_endpoints(page: str) -> Finding:
    states = [(match["at"], match["upstream"], match["ready"]) for match in _READY.finditer(page)]
    away = [f"{at} of {upstream}" for at, upstream, ready in states if float(ready) == 0]
    if away:
        detail = f"not ready: {_list(sorted(away))}"
        remedy = "Look at these servers; others of the upstream are asked as long as there are any."
        return Finding("Endpoints", Verdict.NOTE, detail, remedy)
    detail = f"{len(states)} say that they can be asked" if states else "none says that it cannot"
    return Finding("Endpoints", Verdict.OK, detail)


def _check_sources(page: str) -> list[Finding]:
    """Look whether sources of endpoints still say something; nothing where there are none."""
    ages = {match["source"]: float(match["age"]) for match in _AGE.finditer(page)}
    silent = [source for source, age_s in sorted(ages.items()) if age_s > SOURCE_NOTE_S]
    if silent:
        remedy = "See why in the agent's log; what they said last is used until they answer."
        return [Finding("Discovery", Verdict.NOTE, f"silent: {_list(silent)}", remedy)]
    return [Finding("Discovery", Verdict.OK, f"{len(ages)} sources answer")] if ages else []


def _check_lag(values: dict[str, float]) -> Finding:
    lag_s = values.get("penstock_ship_lag_seconds", 0.0)
    waiting = values.get("penstock_journal_unshipped_records", 0.0)
    detail = f"{waiting:,.0f} journal records on their way, the oldest {lag_s:,.1f} s old"
    remedy = "Look whether control answers; usage is safe in the journal until it does."
    if lag_s > LAG_FAILED_S:
        return Finding("Journal lag", Verdict.FAILED, detail, remedy)
    if lag_s > LAG_NOTE_S:
        return Finding("Journal lag", Verdict.NOTE, detail, remedy)
    return Finding("Journal lag", Verdict.OK, detail)


def _check_journal(values: dict[str, float]) -> Finding:
    said: list[tuple[str, str, str]] = [
        (
            "penstock_journal_full",
            "it is full: requests are refused",
            "Free space on the data folder's disk.",
        ),
        (
            "penstock_journal_damaged_segments_total",
            "a segment is damaged: what is behind the damage was not booked",
            "Keep the journal folder, and look at the disk and the agent's log.",
        ),
        (
            "penstock_ship_refused_events_total",
            "control refused usage events for ever: they are set aside on the disk",
            "Look into the agent's log for the reason.",
        ),
        (
            "penstock_config_rejected",
            "the configuration is not valid: the last valid one is served from",
            "penstock config check",
        ),
    ]
    for name, detail, remedy in said:
        if values.get(name, 0.0) > 0:
            return Finding("Journal", Verdict.FAILED, detail, remedy)
    return Finding("Journal", Verdict.OK, "whole, with room")


def read_samples(text: str) -> dict[str, float]:
    r"""Return the samples of Prometheus' text form, summed over their labels.

    >>> read_samples('# HELP a_b c\na_b{x="1"} 2\na_b{x="2"} 3.5\n')
    {'a_b': 5.5}
    """
    values: dict[str, float] = {}
    for match in _SAMPLE.finditer(text):
        values[match["name"]] = values.get(match["name"], 0.0) + float(match["value"])
    return values


def _list(items: Iterable[object]) -> str:
    return ", ".join(map(str, items))
