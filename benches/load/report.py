"""The report of a run: a table on the terminal; Markdown, JSON and a plot in a folder."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benches.load.figures import TABLE, Figure, Samples, Verdict, judge, warnings
from benches.load.machine import Machine
from benches.load.plot import draw
from rich.console import Console
from rich.table import Table

_STYLES = {"pass": "green", "FAIL": "bold red"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything a run gives."""

    machine: Machine
    settings: dict[str, float | int]
    """Rounds, seconds, streams."""
    versions: dict[str, str]
    notes: dict[str, str]
    """What each gateway does to a request besides passing it on."""
    samples: Samples
    remarks: list[str] = field(default_factory=list)
    """Who was skipped, and why."""

    def verdicts(self) -> list[Verdict]:
        """Return the requirements with what was measured."""
        return judge(self.samples)

    def all_remarks(self) -> list[str]:
        """Return who was skipped, and what to know before believing the figures."""
        return self.remarks + warnings(self.samples)


def _cell(samples: Samples, name: str, figure: Figure) -> str:
    value = samples.find(name, figure)
    return "" if value is None else f"{value:,.{figure.digits}f}"


def _title(figure: Figure) -> str:
    return f"{figure.title} ({figure.unit})" if figure.unit else figure.title


def _value(verdict: Verdict) -> str:
    return "" if verdict.value is None else f"{verdict.value:.2f}"


def _method(outcome: Outcome) -> str:
    rounds, seconds, streams = (outcome.settings[key] for key in ("rounds", "seconds", "streams"))
    return (
        f"Median of {rounds} interleaved rounds of {seconds:g} s a measure; memory and first chunk"
        f" at {streams:,} open streams, once. The gateway has one core, emulator and client share"
        " another."
    )


def print_report(outcome: Outcome, console: Console) -> None:
    """Print figures, requirements and remarks; one row a figure, one column a gateway."""
    names = outcome.samples.names()
    table = Table(title="One pinned core, the same emulator, one run", caption=_method(outcome))
    table.add_column("")
    for name in names:
        table.add_column(name, justify="right")
    for figure in TABLE:
        table.add_row(_title(figure), *(_cell(outcome.samples, name, figure) for name in names))
    console.print(table)
    required = Table(title="Requirements")
    for heading in ("", "limit", "measured", ""):
        required.add_column(heading)
    for verdict in outcome.verdicts():
        style = _STYLES.get(verdict.word, "dim")
        required.add_row(
            verdict.text, verdict.sentence(), _value(verdict), verdict.word, style=style
        )
    console.print(required)
    for remark in outcome.all_remarks():
        console.print(f"[yellow]note:[/yellow] {remark}", highlight=False)


def to_markdown(outcome: Outcome, plot: str) -> str:
    """Return the report as Markdown; `plot` is the plot's file name."""
    samples = outcome.samples
    names = samples.names()
    lines = ["# Load bench", "", *outcome.machine.lines(), _method(outcome), ""]
    lines += [f"| | {' | '.join(names)} |", f"|---|{'--:|' * len(names)}"]
    for figure in TABLE:
        cells = " | ".join(_cell(samples, name, figure) for name in names)
        lines.append(f"| {_title(figure)} | {cells} |")
    lines += ["", "| requirement | limit | measured | |", "|---|--:|--:|---|"]
    for verdict in outcome.verdicts():
        lines.append(
            f"| {verdict.text} | {verdict.sentence()} | {_value(verdict)} | {verdict.word} |"
        )
    lines.append("")
    for name, version in outcome.versions.items():
        note = outcome.notes.get(name)
        lines.append(f"- {name} {version}{': ' + note if note else ''}")
    lines += [f"- **Note:** {remark}" for remark in outcome.all_remarks()]
    lines += ["", f"![The figures as bars]({plot})", ""]
    lines.append("How to read it: `docs/explanation/benchmarks.md`.")
    return "\n".join(lines) + "\n"


def write_report(outcome: Outcome, folder: Path, stem: str) -> list[Path]:
    """Write `<stem>.json`, `<stem>.md` and `<stem>.svg`; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    data = {
        "machine": outcome.machine.export(),
        "settings": outcome.settings,
        "versions": outcome.versions,
        "notes": outcome.notes,
        "figures": outcome.samples.export(),
        "requirements": [
            asdict(verdict) | {"verdict": verdict.word} for verdict in outcome.verdicts()
        ],
        "remarks": outcome.all_remarks(),
    }
    json_path, markdown_path, plot_path = (
        folder / f"{stem}.{suffix}" for suffix in ("json", "md", "svg")
    )
    json_path.write_text(json.dumps(data, indent=1) + "\n")
    markdown_path.write_text(to_markdown(outcome, plot_path.name))
    draw(outcome.samples, plot_path)
    return [json_path, markdown_path, plot_path]
