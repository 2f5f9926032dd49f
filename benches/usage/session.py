"""The usage bench: how much usage is taken in, how late it is, and how soon months are added up."""

import argparse
import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from benches.load.machine import REPOSITORY, describe_machine
from benches.usage import lag, months, throughput
from benches.usage.lag import Lag
from benches.usage.months import Months
from benches.usage.plane import KEYS, KINDS, ORGANIZATIONS
from benches.usage.throughput import BATCH, PRODUCERS, Throughput
from rich.console import Console

Row = tuple[str, str, str, bool]


@dataclass(frozen=True, slots=True)
class Figures:
    """All that was measured."""

    throughput: list[Throughput]
    lag: list[Lag]
    months: list[Months]

    def rows(self) -> list[Row]:
        """Return what, how much, what is wanted, and whether that is so."""
        rows: list[Row] = []
        for one in self.throughput:
            grown = one.rss_mb_end - one.rss_mb_start
            name = f"{one.kind}: events a second, to the ledger"
            rows += [
                (name, f"{one.per_second:,.0f}", ">= 3,000", one.per_second >= 3_000),
                (f"{one.kind}: growth of memory, MB", f"{grown:.1f}", "<= 20", grown <= 20),
            ]
        rows += [
            (
                f"{one.kind}: lag at half that rate, p99 s",
                f"{one.p99_s:.2f}",
                "<= 2",
                one.p99_s <= 2,
            )
            for one in self.lag
        ]
        for each in self.months:
            slowest = max(each.by_model_ms, each.by_key_ms)
            name = f"{each.kind}: a month of half of {months.EVENTS:,} events, ms"
            rows.append((name, f"{slowest:.0f}", "<= 300", slowest <= 300))
        return rows


def main(arguments: list[str]) -> int:
    """Run the bench and write `results/usage.md` and `usage.json`."""
    options = _parse(arguments)
    console = Console()
    machine = describe_machine(Path(tempfile.gettempdir()))
    figures = Figures([], [], [])
    for kind in KINDS:
        with tempfile.TemporaryDirectory(prefix="penstock-usage-") as name:
            folder = Path(name)
            for part in ("throughput", "lag", "months"):
                (folder / part).mkdir()
            console.print(f"{kind}: throughput")
            figures.throughput.append(
                throughput.measure(
                    kind, folder / "throughput", options.seconds, has_budgets=options.budgets
                )
            )
            console.print(f"{kind}: lag")
            figures.lag.append(lag.measure(kind, folder / "lag", options.lag_seconds))
            console.print(f"{kind}: months")
            figures.months.append(months.measure(kind, folder / "months"))
    text = _render(machine.lines(), figures, has_budgets=options.budgets)
    console.print(text, highlight=False)
    results = REPOSITORY / "benches" / "results"
    (results / "usage.md").write_text(text)
    data = {"machine": machine.export(), **asdict(figures)}
    (results / "usage.json").write_text(json.dumps(data, indent=1) + "\n")
    is_good = all(good for *_, good in figures.rows())
    return 0 if is_good or not options.check else 1


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benches/usage/run.py", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="of throughput, each database")
    parser.add_argument("--lag-seconds", type=float, default=30, help="of lag, each database")
    parser.add_argument(
        "--budgets",
        action="store_true",
        help="all take off a hard budget and a wallet, held before",
    )
    parser.add_argument("--check", action="store_true", help="fail when a requirement is not met")
    return parser.parse_args(arguments)


def _render(machine: list[str], figures: Figures, *, has_budgets: bool) -> str:
    budgets = "Each holds of a hard budget and a wallet." if has_budgets else "No budgets."
    rows = [
        f"| {what} | {value} | {wanted} | {'yes' if is_good else '**no**'} |"
        for what, value, wanted, is_good in figures.rows()
    ]
    taken = [
        f"| {one.kind} | {one.per_second:,.0f} | {one.slowest_5s:,.0f} | {one.cpu_us:.0f} "
        f"| {one.rss_mb_start:.0f} | {one.rss_mb_end:.0f} |"
        for one in figures.throughput
    ]
    late = [
        f"| {one.kind} | {one.events:,} | {one.median_s:.2f} | {one.p99_s:.2f} | {one.most_s:.2f} |"
        for one in figures.lag
    ]
    asked = [
        f"| {one.kind} | {one.rows:,} | {one.by_model_ms:.0f} | {one.by_key_ms:.0f} "
        f"| {one.year_ms:.0f} |"
        for one in figures.months
    ]
    lines = [
        "# Usage bench",
        "",
        *machine,
        "",
        "| | measured | wanted | |",
        "|---|--:|--:|---|",
        *rows,
        "",
        f"Taken in: batches of {BATCH} from {PRODUCERS} nodes at a time to one control plane, for",
        f"{figures.throughput[0].seconds:.0f} s after a warm-up; {ORGANIZATIONS} organizations,",
        f"{KEYS} keys each, two models a key, a label on every fifth event; charge and cost of",
        f"each are priced and booked. {budgets}",
        "Commits wait for the disk. Nodes, control plane and PostgreSQL share the machine.",
        "",
        "| database | events/s | slowest 5 s | µs CPU an event | MB at first | in the end |",
        "|---|--:|--:|--:|--:|--:|",
        *taken,
        "",
        f"Lag: {lag.PER_SECOND:,} events a second into journals; from an event's end to its row.",
        "",
        "| database | events | median s | p99 s | most s |",
        "|---|--:|--:|--:|--:|",
        *late,
        "",
        f"Months: the figures of days as {months.EVENTS:,} events of a year leave them, filled by",
        "SQL, not shipped; half of them are of the one organization that is asked for. Medians.",
        "",
        "| database | rows | month by model, ms | month by key, ms | year by model, ms |",
        "|---|--:|--:|--:|--:|",
        *asked,
        "",
    ]
    return "\n".join(lines)
