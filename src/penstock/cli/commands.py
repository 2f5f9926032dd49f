"""Commands that are made when they are asked for: to make them all takes longer than most run."""

import functools
import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import typer
from typer.main import get_group


@dataclass(frozen=True, slots=True)
class Place:
    """Where a command is written, and under which heading the help has it."""

    module: str
    """Below `penstock.cli`."""
    panel: str | None = None
    function: str = ""
    """Without one the module's `app` is a group of commands."""
    examples: str = "EXAMPLES"
    """What of the module follows the function's help."""


class Commands(Mapping[str, Any]):
    """Commands by their names, in the order of the help.

    Args:
        places: Where they are written.
    """

    def __init__(self, places: Mapping[str, Place]) -> None:
        """See the class; imports nothing yet."""
        self._places = places

    def __getitem__(self, name: str) -> Any:
        """Return a command."""
        return _make(name, self._places[name])

    def __iter__(self) -> Iterator[str]:
        """Return the names."""
        return iter(self._places)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._places)


@functools.cache
def _make(name: str, place: Place) -> Any:
    module = importlib.import_module(f"penstock.cli.{place.module}")
    parent = typer.Typer(rich_markup_mode="markdown")
    if place.function:
        examples = getattr(module, place.examples)
        register = parent.command(name, epilog=examples, rich_help_panel=place.panel)
        register(getattr(module, place.function))
    else:
        parent.add_typer(module.app, rich_help_panel=place.panel)
    return get_group(parent).commands[name]
