"""Makes options that take a word and have no default to show."""

from typing import Any

import typer


def option(name: str, text: str, metavar: str, **more: Any) -> Any:
    """Return an option.

    Args:
        name: `--region`.
        text: What it says, for the help.
        metavar: What stands for its value in the help.
        more: Passed on to Typer.
    """
    return typer.Option(name, help=text, metavar=metavar, show_default=False, **more)
