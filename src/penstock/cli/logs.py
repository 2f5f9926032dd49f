"""`penstock logs`: what running processes log."""

from typing import Annotated

import typer

from penstock.cli.debug import ask
from penstock.cli.instance import DataOption, data_folder
from penstock.cli.output import JsonOption, examples, print_json
from penstock.kit.logs.setup import LevelName

_TIMEOUT_S = 10.0

app = typer.Typer(name="logs", help="Change what running processes log.", no_args_is_help=True)


@app.callback()
def logs() -> None:
    """Change what running processes log."""


@app.command(
    epilog=examples(
        "penstock logs level               what the node logs from",
        "penstock logs level debug         everything, until it is changed or restarted",
        "penstock logs level --control warning",
    )
)
def level(
    *,
    level: Annotated[
        LevelName | None,
        typer.Argument(help="The new level: debug, info, warning or error.", metavar="[LEVEL]"),
    ] = None,
    control: Annotated[
        bool, typer.Option("--control", help="Of the control plane's process, not of the node.")
    ] = False,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show or change the level of a node's agent and workers, or of the control plane.

    On its machine, as its user. A restart takes the change back. Libraries say `info` and above,
    whatever the level is.
    """
    from penstock.kit.logs.switch import PATH  # noqa: PLC0415  # start-up time

    process = "control" if control else "agent"
    parameters = {} if level is None else {"level": level}
    method = "GET" if level is None else "PUT"
    found = ask(data_folder(data), process, PATH, parameters, _TIMEOUT_S, method=method)
    if as_json:
        print_json(found)
    else:
        typer.echo(found["level"])
