"""One run of `penstock dev`: from options to the last process stopped."""

import asyncio
import os
import sys
import time

import httpx
import msgspec

from penstock.cli.instance import ControlPlane, find_facts
from penstock.cli.launch import ports
from penstock.cli.launch.applier import Applier
from penstock.cli.launch.child import Child
from penstock.cli.launch.data import DataFolder
from penstock.cli.launch.leftovers import end_workers
from penstock.cli.launch.options import DevOptions
from penstock.cli.launch.plan import Plan, make_plan
from penstock.cli.launch.probes import probe_client, ready_when, serves_newest, works_with
from penstock.cli.launch.reporter import Reporter
from penstock.cli.launch.run import Running, StopSignals, run
from penstock.control.settings import ControlSettings
from penstock.kit.clock import SystemClock
from penstock.node.settings import LABELS, AgentSettings

DRAIN_GRACE_S = 10.0
"""How long streams may finish at Ctrl-C: a developer waits for it."""
SHIP_GRACE_S = 5.0
_SLACK_S = 10.0
_ASKED_A_WORKER = 3
"""Questions for each worker until all of them surely know the dev key."""
_PREVIOUS_PATIENCE_S = 30.0


def run_dev(options: DevOptions, reporter: Reporter) -> None:
    """Run everything until a signal.

    Raises:
        CommandError: It could not start; nothing is left running.
    """
    folder = DataFolder(options.data)
    try:
        _await_previous(options, folder, reporter)
        plan = make_plan(options, folder, reporter, SystemClock(), os.getpid())
        asyncio.run(_run(plan, folder, reporter))
    finally:
        folder.close()


async def _run(plan: Plan, folder: DataFolder, reporter: Reporter) -> None:
    clock = SystemClock()
    signals = StopSignals(
        clock,
        lambda: reporter.warn(
            "hurrying: what is unfinished is cut off and booked at the next start"
        ),
    )
    signals.install()

    def on_ready() -> None:
        folder.write_facts(plan.facts)
        reporter.ready(plan.facts)

    async with probe_client() as client:
        children = make_children(plan, folder, client)
        applier = _make_applier(plan, folder, client, reporter)
        running = Running(
            reporter=reporter,
            clock=clock,
            on_ready=on_ready,
            configure=applier.start,
            follow=applier.follow,
        )
        try:
            await run(children, signals, running)
        finally:
            count = end_workers(folder.path)
            if count:
                reporter.warn(f"{count} gateway workers were still there and were killed")


def _make_applier(
    plan: Plan, folder: DataFolder, client: httpx.AsyncClient, reporter: Reporter
) -> Applier:
    facts = plan.facts
    node_token = (folder.path / "secrets" / "node_token").read_text(encoding="ascii").strip()
    return Applier(
        plan.config.absolute(),
        ControlPlane(facts.control_url, facts.admin_token),
        is_control_ready=ready_when(client, f"{facts.control_url}/health/ready"),
        is_served=serves_newest(client, facts.metrics_url, facts.control_url, node_token),
        reporter=reporter,
    )


def make_children(plan: Plan, folder: DataFolder, client: httpx.AsyncClient) -> tuple[Child, ...]:
    """Return the processes in the order in which they are stopped.

    The agent is first, so that streams finish while their engines still answer, and then ships
    the last usage; control takes it, and goes next; the engines are last.
    """
    return (
        _agent(plan, folder, client),
        _control(plan, folder, client),
        *_engines(plan, folder, client),
    )


def _agent(plan: Plan, folder: DataFolder, client: httpx.AsyncClient) -> Child:
    options, facts = plan.options, plan.facts
    settings = AgentSettings(
        data_path=str(folder.path),
        control_url=facts.control_url,
        host=ports.HOST,
        port=plan.ports["--gateway-port"],
        grpc_port=options.grpc_port,
        metrics_host=ports.HOST,
        metrics_port=plan.ports["--metrics-port"],
        workers=options.workers,
        journal_strict=options.is_journal_strict,
        drain_grace_s=DRAIN_GRACE_S,
        ship_grace_s=SHIP_GRACE_S,
        labels=options.labels or LABELS,
        metadata_labels=options.metadata_labels,
        access_log="all",
        access_log_path=str(folder.log_path("access")),
        log_format=options.log_format,
        log_level=options.log_level,
    )
    is_up = ready_when(client, f"{facts.base_url}/health/ready", f"{facts.metrics_url}/metrics")
    knows_key = works_with(
        client, f"{facts.base_url}/v1/models", facts.api_key, _ASKED_A_WORKER * options.workers
    )

    async def is_ready() -> bool:
        return await is_up() and await knows_key()

    return Child(
        name="gateway",
        command=_python("penstock.node", settings),
        log_path=folder.log_path("agent"),
        other_logs=(
            *(folder.log_path(f"worker-{slot}") for slot in range(options.workers)),
            folder.log_path("access"),
        ),
        is_ready=is_ready,
        stop_grace_s=DRAIN_GRACE_S + SHIP_GRACE_S + _SLACK_S,
    )


def _control(plan: Plan, folder: DataFolder, client: httpx.AsyncClient) -> Child:
    settings = ControlSettings(
        data_dir=str(folder.path),
        host=ports.HOST,
        port=plan.ports["--control-port"],
        log_format=plan.options.log_format,
        log_level=plan.options.log_level,
    )
    return Child(
        name="control",
        command=_python("penstock.control", settings),
        log_path=folder.log_path("control"),
        is_ready=ready_when(client, f"{plan.facts.control_url}/health/ready"),
        stop_grace_s=15.0,
    )


def _engines(plan: Plan, folder: DataFolder, client: httpx.AsyncClient) -> tuple[Child, ...]:
    return tuple(
        Child(
            name=engine.name,
            command=engine.command(port),
            log_path=folder.log_path(engine.name),
            is_ready=ready_when(client, plan.facts.engines[engine.name] + engine.ready_path),
            start_timeout_s=engine.start_timeout_s,
        )
        for engine, port in plan.engines
    )


def _python(module: str, settings: msgspec.Struct) -> tuple[str, ...]:
    return (sys.executable, "-m", module, msgspec.json.encode(settings).decode())


def _await_previous(options: DevOptions, folder: DataFolder, reporter: Reporter) -> None:
    """Wait for processes of a run that was killed: they are told to end, but streams may finish."""
    before = find_facts(folder.path)
    if before is None:
        return
    urls = (before.base_url, before.control_url, before.metrics_url)
    wanted = (options.gateway_port, options.control_port, options.metrics_port)
    shared = [port for port in wanted if any(url.endswith(f":{port}") for url in urls)]
    deadline = time.monotonic() + _PREVIOUS_PATIENCE_S
    is_told = False
    while time.monotonic() < deadline:
        busy = [port for port in shared if not ports.is_free(port)]
        holders = [ports.find_holder(port) for port in busy]
        # Our processes carry the data folder in their settings; others are told of as any other.
        if not any(holder and str(folder.path) in holder.command for holder in holders):
            return
        if not is_told:
            reporter.progress("Waiting for the processes of the run before to end ...")
            is_told = True
        time.sleep(0.2)
