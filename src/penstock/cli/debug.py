"""`penstock debug`: what a running process says of itself to its operator."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from penstock.cli.errors import BAD_OPTION, CONTROL_FAILED, NOT_RUNNING, CommandError
from penstock.cli.instance import DataOption, data_folder
from penstock.cli.options import option
from penstock.cli.output import JsonOption, examples, print_json, print_table, printable
from penstock.kit.inspection_topics import DEFAULT_ROWS, MAX_ROWS, MAX_TRACE_S, Topic

EXAMPLES = examples(
    "penstock debug connections --worker 0   what its requests wait for, oldest first",
    "penstock debug tasks                    where the agent's tasks are",
    "penstock debug memory --worker 0 --trace 5",
    "penstock debug threads --control --json",
)
_SLACK_S = 15.0
_NO_SUCH = "Say `penstock debug --help`."


def debug(
    *,
    topic: Annotated[Topic, typer.Argument(metavar="TOPIC", help=f"One of {', '.join(Topic)}.")],
    worker: Annotated[
        int | None, option("--worker", "Ask this worker, 0 is the first.", "SLOT")
    ] = None,
    control: Annotated[
        bool, typer.Option("--control", help="Ask the control plane's process.")
    ] = False,
    rows: Annotated[
        int, typer.Option("--rows", help="The most rows.", min=1, max=MAX_ROWS)
    ] = DEFAULT_ROWS,
    trace: Annotated[
        float,
        typer.Option(
            "--trace",
            help="With `memory`: trace what is allocated for so long. It slows the process.",
            metavar="SECONDS",
            min=0,
            max=MAX_TRACE_S,
        ),
    ] = 0.0,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Look into a running process: the node's agent, one of its workers, or the control plane.

    On its machine, as its user. Shown are names, places in the code and figures, no content of
    requests, no values of variables and no secrets.
    """
    if worker is not None and control:
        detail = "--worker and --control exclude each other."
        raise CommandError(BAD_OPTION, detail, _NO_SUCH)
    parameters = {"rows": str(rows), "trace_s": str(trace)}
    if worker is not None:
        parameters["worker"] = str(worker)
    process = "control" if control else "agent"
    found = ask(data_folder(data), process, f"/debug/{topic}", parameters, _SLACK_S + trace)
    if as_json:
        print_json(found)
    else:
        _show(found)


def ask(
    folder: Path,
    process: str,
    path: str,
    parameters: Mapping[str, str],
    timeout_s: float,
    *,
    method: str = "GET",
) -> dict[str, Any]:
    """Return what a process of this machine answers to its operator.

    Args:
        folder: Its data folder.
        process: `agent` or `control`.
        path: What is asked.
        parameters: And how.
        timeout_s: The longest that it may take.
        method: `PUT` changes something.

    Raises:
        CommandError: It does not run, we are not its user, or it cannot answer that.
    """
    import httpx  # noqa: PLC0415  # start-up time

    from penstock.kit.debug_door import short_path, socket_path  # noqa: PLC0415  # as above

    place = socket_path(folder, process)
    try:
        with (
            short_path(place) as short,
            httpx.Client(transport=httpx.HTTPTransport(uds=short), timeout=timeout_s) as client,
        ):
            answer = client.request(method, f"http://{process}{path}", params=dict(parameters))
            found = answer.json()
    except (OSError, httpx.HTTPError, ValueError) as error:
        detail = f"The {process} does not answer at {place}: {str(error) or type(error).__name__}."
        remedy = "Run it where the process runs, as its user, with --data of its data folder."
        raise CommandError(NOT_RUNNING, detail, remedy) from None
    if not answer.is_success:
        detail = f"The {process} cannot answer: {found.get('error')}."
        raise CommandError(CONTROL_FAILED, detail, _NO_SUCH)
    return dict(found)


def _show(found: Mapping[str, Any]) -> None:
    """Print figures first, then a table for each list of rows, then stacks."""
    for name, value in found.items():
        if not _is_rows(value):
            sys.stdout.write(printable(f"{name}: {_words(value)}") + "\n")
    for name, value in found.items():
        if _is_rows(value) and "stack" in value[0]:
            _show_stacks(value)
        elif _is_rows(value):
            sys.stdout.write(f"\n{name}\n")
            columns = list(value[0])
            cells = [[printable(_words(cell)) for cell in row.values()] for row in value]
            print_table(columns, cells, expendable=columns[:1:-1])


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _show_stacks(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        names = row.get("names") or [row.get("name")]
        count = row.get("count", 1)
        sys.stdout.write("\n" + printable(f"{count} x {', '.join(map(str, names))}") + "\n")
        for place in row["stack"]:
            sys.stdout.write(printable(f"    {place}") + "\n")


def _words(value: Any) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case dict():
            return ", ".join(f"{name} {_words(inner)}" for name, inner in value.items())
        case list():
            return ", ".join(map(_words, value))
    return str(value)
