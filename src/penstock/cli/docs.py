"""`penstock docs`: reference pages made from the code, for those who work on Penstock."""

from pathlib import Path
from typing import Annotated

import typer

from penstock.cli.output import examples

app = typer.Typer(
    name="docs",
    help="Make reference pages from the code.",
    hidden=True,
    no_args_is_help=True,
)


@app.callback()
def docs() -> None:
    """Make reference pages from the code."""


@app.command(epilog=examples("penstock docs cli --output docs/reference/cli.md"))
def cli(
    *,
    output: Annotated[
        Path | None, typer.Option(help="File to write instead of stdout.", show_default=False)
    ] = None,
) -> None:
    """Print the reference of the command line as Markdown."""
    from penstock.cli.main import app as whole  # noqa: PLC0415  # it imports this module
    from penstock.cli.reference import render_reference  # noqa: PLC0415  # start-up time

    text = render_reference(whole)
    if output is None:
        typer.echo(text, nl=False)
    else:
        output.write_text(text)
