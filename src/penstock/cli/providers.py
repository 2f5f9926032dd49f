"""`penstock providers`: what can serve an upstream."""

import typer

from penstock.cli.instance import DataOption, connect
from penstock.cli.output import JsonOption, examples
from penstock.cli.records import show_list, text_of

app = typer.Typer(
    name="providers", help="Look at what can serve an upstream.", no_args_is_help=True
)


@app.callback()
def providers() -> None:
    """Look at what can serve an upstream."""


@app.command("list", epilog=examples("penstock providers list"))
def list_all(*, data: DataOption = None, as_json: JsonOption = False) -> None:
    """List the kinds of engines and services. With --json: one object a line."""
    with connect(data) as client:
        show_list(
            iter(client.get("/api/v1/providers")["data"]),
            (("Name", text_of("name")), ("What it is", text_of("description"))),
            limit=None,
            as_json=as_json,
            nothing="There is no provider.",
        )
