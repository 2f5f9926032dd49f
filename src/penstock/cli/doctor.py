"""`penstock doctor`: is all well here, and what to do if not?"""

from collections.abc import Iterable
from pathlib import Path

import typer

from penstock.cli.checks.model import Finding, Verdict
from penstock.cli.config import CONFIG_FILE
from penstock.cli.errors import EXIT_FAILURE
from penstock.cli.instance import DataOption, Facts, data_folder, find_facts, is_running
from penstock.cli.output import JsonOption, console, examples, print_json

EXAMPLES = examples(
    "penstock doctor",
    "penstock doctor --json | jq -r 'select(.verdict == \"failed\").remedy'",
)
_DEFAULT_PORTS = {"--gateway-port": 8080, "--control-port": 8081, "--metrics-port": 9464}
_MARKS = {
    Verdict.OK: ("ok", "green"),
    Verdict.NOTE: ("note", "yellow"),
    Verdict.FAILED: ("FAILED", "bold red"),
    Verdict.SKIPPED: ("skipped", "dim"),
}


def doctor(*, data: DataOption = None, as_json: JsonOption = False) -> None:
    """Check this machine, the data folder and the running instance, and say what to do.

    Changes nothing. Exit code 1 when a check fails; notes and skipped checks do not count. With
    --json: one object a line, a check each.
    """
    folder = data_folder(data)
    facts = find_facts(folder)
    has_failed = False
    for finding in _findings(folder, facts):
        has_failed = has_failed or finding.verdict is Verdict.FAILED
        if as_json:
            print_json(finding)
        else:
            _print(finding)
    if has_failed:
        raise typer.Exit(EXIT_FAILURE)


def _findings(folder: Path, facts: Facts | None) -> Iterable[Finding]:
    from penstock.cli.checks import folder as folders  # noqa: PLC0415  # start-up time
    from penstock.cli.checks import machine, running  # noqa: PLC0415  # as above
    from penstock.kit.clock import SystemClock  # noqa: PLC0415  # as above

    yield machine.check_python()
    yield machine.check_platform()
    yield machine.check_dependencies()
    yield machine.check_open_files()
    yield machine.check_disk(folder)
    yield machine.check_clock(folder, SystemClock())
    yield folders.check_permissions(folder)
    yield folders.check_config(
        Path(facts.config) if facts and facts.config else folder / CONFIG_FILE
    )
    if is_running(folder):
        if facts is None:
            yield Finding("Instance", Verdict.SKIPPED, f"is starting from {folder}", "Wait for it.")
            return
        yield Finding("Instance", Verdict.OK, f"runs as process {facts.pid} from {folder}")
        yield from running.check_instance(facts)
        return
    yield Finding("Instance", Verdict.SKIPPED, f"none runs from {folder}", "penstock dev")
    yield running.check_ports(_DEFAULT_PORTS)


def _print(finding: Finding) -> None:
    from rich.text import Text  # noqa: PLC0415  # start-up time

    word, style = _MARKS[finding.verdict]
    out = console()
    line = Text.assemble((f"{word:<8}", style), (f"{finding.check:<14}", "bold"), finding.detail)
    out.print(line)
    if finding.remedy and finding.verdict is not Verdict.OK:
        out.print(Text(f"{'':<22}-> {finding.remedy}"))
