"""`penstock version`."""

import platform

import typer

from penstock import __version__
from penstock.cli.output import JsonOption, print_json

EXAMPLES = None


def version(*, as_json: JsonOption = False) -> None:
    """Show the version of Penstock and of Python."""
    python = platform.python_version()
    if as_json:
        print_json({"penstock": __version__, "python": python})
    else:
        typer.echo(f"penstock {__version__} (Python {python})")
