"""The control bench: creations of keys a second, and how soon changes act on every worker."""

import argparse
import asyncio
import functools
import json
import math
import shutil
import statistics
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
from benches.control.creations import Creations, create_keys
from benches.control.effects import Probe, measure_effect, open_probes
from benches.control.traffic import Traffic
from benches.control.weighing import Meter
from benches.load.machine import REPOSITORY, describe_machine
from rich.console import Console
from tests.fakes.postgresql_server import run_cluster
from tests.fakes.production import MODEL, Production, administer, change, create

TRAFFIC_S = 600
"""Longest that traffic flows; it ends with the changes."""
_NO_INFERENCE = "auditor"


@dataclass(frozen=True, slots=True)
class Effects:
    """How long one sort of change took, in milliseconds, until all workers acted on it."""

    name: str
    times_ms: list[float]

    def percentile_ms(self, percent: float) -> float:
        """Return a percentile: the time that so many percent did not pass."""
        return sorted(self.times_ms)[math.ceil(len(self.times_ms) * percent / 100) - 1]

    def row(self) -> tuple[str, ...]:
        """Return the row of the table."""
        values = (*(self.percentile_ms(percent) for percent in (50, 99)), max(self.times_ms))
        return (self.name, str(len(self.times_ms)), *(f"{value:,.0f}" for value in values))


@dataclass(frozen=True, slots=True)
class Round:
    """Creations, one way after the other."""

    plain: Creations
    repeatable: Creations
    """With an idempotency key each, as the command line sends."""
    others_percent: float
    """Processor time that others took meanwhile, in percent of one core."""


class Session:
    """One run against one product.

    Args:
        production: What is measured.
        admin: Its admin API.
        folder: Takes scripts.
        options: See `_parse`.
        console: Takes the progress.
    """

    def __init__(
        self,
        production: Production,
        admin: httpx.Client,
        folder: Path,
        options: argparse.Namespace,
        console: Console,
    ) -> None:
        """See the class."""
        self._production = production
        self._admin = admin
        self._folder = folder
        self._options = options
        self._console = console
        self._organization = create(admin, "/organizations", name="bench")["id"]
        self._project = self._create_project(self._organization, "bench")

    def create_keys(self) -> list[Round]:
        """Create keys as fast as it goes, round after round."""
        rounds = []
        for number in range(self._options.rounds):
            self._console.print(f"creations, round {number + 1} of {self._options.rounds}")
            meter = Meter()
            plain, repeatable = (
                create_keys(
                    self._production,
                    self._project,
                    self._folder,
                    seconds=self._options.seconds,
                    is_repeatable=is_repeatable,
                )
                for is_repeatable in (False, True)
            )
            rounds.append(Round(plain, repeatable, meter.others_percent()))
        return rounds

    def change_things(self) -> tuple[list[Effects], Traffic, float]:
        """Return how long changes took under traffic, what it saw, and what others took."""
        steady = self._create_key(self._project, "steady")["secret"]
        doomed = [
            self._create_key(self._project, f"doomed {number}")
            for number in range(self._options.revocations)
        ]
        probes = open_probes(self._production)
        for secret in (steady, doomed[-1]["secret"]):
            measure_effect(lambda: None, probes, secret, is_good=True)
        meter = Meter()
        traffic = Traffic(
            self._production,
            steady,
            self._folder,
            per_second=self._options.rate,
            seconds=TRAFFIC_S,
        )
        with traffic:
            effects = [
                self._revoke(doomed, probes),
                *self._suspend(probes),
                *self._change_role(probes),
                *self._change_alias(probes, steady),
            ]
            others = meter.others_percent()
        return effects, traffic, others

    def _revoke(self, keys: list[dict[str, str]], probes: list[Probe]) -> Effects:
        self._console.print(f"{len(keys)} revocations")
        times_ms = []
        for key in keys:
            revoke = functools.partial(change, self._admin, "POST", f"/keys/{key['id']}/revoke")
            times_ms.append(1e3 * measure_effect(revoke, probes, key["secret"], is_good=False))
        return Effects("a key is revoked", times_ms)

    def _suspend(self, probes: list[Probe]) -> list[Effects]:
        self._console.print("suspensions")
        organization = create(self._admin, "/organizations", name="suspended")["id"]
        key = self._create_key(self._create_project(organization, "suspended"), "key")
        path = f"/organizations/{organization}"
        return self._to_and_fro(
            ("an organization is suspended", "POST", f"{path}/suspend", {}),
            ("it is resumed", "POST", f"{path}/resume", {}),
            probes,
            key["secret"],
        )

    def _change_role(self, probes: list[Probe]) -> list[Effects]:
        self._console.print("changes of a role")
        key = self._create_key(self._project, "role")
        path = f"/keys/{key['id']}"
        return self._to_and_fro(
            ("a key's role is one without inference", "PATCH", path, {"role": _NO_INFERENCE}),
            ("it is one with inference again", "PATCH", path, {"role": "inference_only"}),
            probes,
            key["secret"],
        )

    def _change_alias(self, probes: list[Probe], secret: str) -> list[Effects]:
        self._console.print("changes of an alias")
        names = {"name": "switched"}
        upstream = create(
            self._admin,
            "/upstreams",
            **names,
            provider="emulator",
            endpoints=[self._production.url("engine")],
        )
        deployment = create(
            self._admin, "/deployments", **names, upstream_id=upstream["id"], model=MODEL
        )
        choices = [{"deployment_id": deployment["id"]}]
        route = create(self._admin, "/routes", **names, choices=choices)
        alias = create(self._admin, "/aliases", **names, route_id=route["id"], is_open=True)
        path = f"/aliases/{alias['id']}"
        return self._to_and_fro(
            ("an alias is closed", "PATCH", path, {"is_open": False}),
            ("it is opened again", "PATCH", path, {"is_open": True}),
            probes,
            secret,
            model="switched",
        )

    def _to_and_fro(
        self,
        away: tuple[str, str, str, dict[str, Any]],
        back: tuple[str, str, str, dict[str, Any]],
        probes: list[Probe],
        secret: str,
        *,
        model: str = MODEL,
    ) -> list[Effects]:
        """Make a change and undo it, again and again; the key is refused in between."""
        measure_effect(lambda: None, probes, secret, is_good=True, model=model)
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(self._options.changes):
            for (_, method, path, body), is_good in ((away, False), (back, True)):
                act = functools.partial(change, self._admin, method, path, body)
                taken_s = measure_effect(act, probes, secret, is_good=is_good, model=model)
                times[is_good].append(taken_s * 1e3)
        return [Effects(away[0], times[0]), Effects(back[0], times[1])]

    def _create_project(self, organization: str, name: str) -> str:
        found = create(self._admin, "/projects", name=name, organization_id=organization)
        return str(found["id"])

    def _create_key(self, project: str, name: str) -> dict[str, str]:
        return create(self._admin, "/keys", name=name, project_id=project)


def main(arguments: list[str]) -> int:
    """Run the bench and write `results/control.json` and `control.md`."""
    options = _parse(arguments)
    console = Console()
    if shutil.which("wrk") is None:
        console.print("The client is missing: apt-get install wrk")
        return 2
    machine = describe_machine(Path(tempfile.gettempdir()))
    with (
        run_cluster(is_durable=True) as cluster,
        tempfile.TemporaryDirectory(prefix="penstock-control-") as name,
        ExitStack() as stack,
    ):
        asyncio.run(cluster.server.prepare())
        dsn = cluster.server.role_dsn(asyncio.run(cluster.server.create()))
        folder = Path(name)
        production = Production(folder / "data", dsn)
        stack.callback(production.stop)
        production.start_control()
        admin = stack.enter_context(administer(production))
        session = Session(production, admin, folder, options, console)
        creations = {"alone": session.create_keys()}
        production.start_node()
        creations["while a node follows"] = session.create_keys()
        effects, traffic, others = session.change_things()
    text = _render(machine.lines(), creations, effects, traffic, others)
    console.print(text, highlight=False)
    results = REPOSITORY / "benches" / "results"
    (results / "control.md").write_text(text)
    data = {
        "machine": machine.export(),
        "creations": {name: list(map(asdict, rounds)) for name, rounds in creations.items()},
        "effects": [asdict(each) for each in effects],
        "traffic": {"per_second": traffic.per_second, "failed": traffic.failed},
        "others_percent": others,
    }
    (results / "control.json").write_text(json.dumps(data, indent=1) + "\n")
    return 0


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benches/control/run.py", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="of creations")
    parser.add_argument("--seconds", type=int, default=4, help="of each measure in a round")
    parser.add_argument("--revocations", type=int, default=200)
    parser.add_argument("--changes", type=int, default=50, help="of each other sort, and undone")
    parser.add_argument("--rate", type=int, default=5_000, help="good requests a second meanwhile")
    return parser.parse_args(arguments)


def _render(
    machine: list[str],
    creations: dict[str, list[Round]],
    effects: list[Effects],
    traffic: Traffic,
    others: float,
) -> str:
    crowd = statistics.median(
        each.others_percent for rounds in creations.values() for each in rounds
    )
    return "\n".join(
        [
            "# Control bench",
            "",
            *machine,
            "PostgreSQL 18 with fsync, on the same machine.",
            "",
            "| key creations, c=16 | /s, median | /s, best | p50 ms | p99 ms | CPU ms | failed |",
            "|---|--:|--:|--:|--:|--:|--:|",
            *(
                row
                for name, rounds in creations.items()
                for row in (
                    _row(name, [each.plain for each in rounds]),
                    _row(f"{name}, with idempotency keys", [each.repeatable for each in rounds]),
                )
            ),
            "",
            f"Others took {crowd:.0f} % of a core meanwhile. Times and CPU are medians.",
            "",
            "| change, until both workers act on it | times | p50 ms | p99 ms | max ms |",
            "|---|--:|--:|--:|--:|",
            *(f"| {' | '.join(each.row())} |" for each in effects),
            "",
            (
                f"Meanwhile {traffic.per_second:,.0f} chats a second of another key, p99 "
                f"{traffic.p99_ms:.1f} ms, {traffic.failed} without a good answer. Others took "
                f"{others:.0f} % of a core."
            ),
            "",
        ]
    )


def _row(name: str, seen: list[Creations]) -> str:
    rates = [each.per_second for each in seen]
    cells = [name, f"{statistics.median(rates):,.0f}", f"{max(rates):,.0f}"]
    cells += [
        f"{statistics.median(getattr(each, figure) for each in seen):.2f}"
        for figure in ("p50_ms", "p99_ms", "control_ms")
    ]
    return f"| {' | '.join(cells)} | {sum(each.failed for each in seen)} |"
