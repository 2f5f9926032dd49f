"""Shows what control keeps, as tables for people and JSON for programs, and asks before damage."""

import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from penstock.cli.errors import EXIT_FAILURE, NOT_CONFIRMED, CommandError
from penstock.cli.options import option
from penstock.cli.output import console, print_json, print_table

if TYPE_CHECKING:
    from penstock.cli.control_client import Row

DEFAULT_ROWS = 100
NONE = "-"
"""What stands where there is nothing."""

Column = tuple[str, "Callable[[Row], str]"]
"""A heading, and what stands below it."""

LimitOption = Annotated[
    int | None,
    typer.Option(
        min=1, help="Show at most so many.", show_default=f"{DEFAULT_ROWS}; all with --json"
    ),
]
YesOption = Annotated[
    bool, typer.Option("--yes", "-y", help="Do it without asking; needed without a terminal.")
]

NewNameOption = Annotated[str | None, option("--name", "Its name from now on.", "NAME")]


def text_of(name: str) -> "Callable[[Row], str]":
    """Return what shows a member as it is."""
    return lambda row: text_cell(row.get(name))


def time_of(name: str) -> "Callable[[Row], str]":
    """Return what shows a point in time."""
    return lambda row: time_cell(row.get(name))


def text_cell(value: object) -> str:
    """Return a member's value for people.

    >>> text_cell(["b", "a"]), text_cell({"k": "v"}), text_cell(None)
    ('b, a', 'k=v', '-')
    """
    if value in (None, "", [], {}):
        return NONE
    match value:
        case bool():
            return "yes" if value else "no"
        case list():
            return ", ".join(str(part) for part in value)
        case dict():
            return ", ".join(f"{name}={part}" for name, part in value.items())
        case _:
            return str(value)


def time_cell(value: object) -> str:
    """Return a point in time for eyes: to the second, in UTC.

    >>> time_cell("2026-03-01T12:00:00.123456Z")
    '2026-03-01 12:00:00'
    """
    return NONE if not value else str(value)[:19].replace("T", " ")


def words_of(row: "Row") -> str:
    """Return what something is called in a sentence."""
    return f"{row['name']} ({row['id']})"


def all_if_none(name: str) -> "Callable[[Row], str]":
    """Return what shows a list that allows everything when there is none."""
    return lambda row: "all" if row.get(name) is None else text_cell(row[name])


def show_list(
    rows: Iterator["Row"],
    columns: Sequence[Column],
    *,
    limit: int | None,
    as_json: bool,
    nothing: str,
    expendable: Sequence[str] = (),
) -> None:
    """Print what a list has.

    Args:
        rows: All of it; no more is taken than is shown.
        columns: What people see of each.
        limit: At most so many; by default `DEFAULT_ROWS` for people, all for programs.
        as_json: One object a line instead of a table.
        nothing: Sentence for people when there is none.
        expendable: Headings that may be left out on a narrow terminal, in this order.
    """
    if as_json:
        for row in rows if limit is None else islice(rows, limit):
            print_json(row)
        return
    wanted = limit or DEFAULT_ROWS
    shown = list(islice(rows, wanted + 1))
    has_more = len(shown) > wanted
    if not shown:
        console().print(nothing, markup=False)
        return
    cells = [[cell(row) for _, cell in columns] for row in shown[:wanted]]
    print_table([heading for heading, _ in columns], cells, expendable=expendable)
    if has_more:
        console().print(f"(Only the first {wanted:,}; --limit N shows more.)", style="dim")


def show_one(row: "Row", fields: Sequence[Column], *, as_json: bool) -> None:
    """Print one object: a line a field, or JSON as control answered it."""
    if as_json:
        print_json(row)
        return
    width = max(len(heading) for heading, _ in fields)
    out = console()
    for heading, cell in fields:
        out.print(f"{heading:<{width}}  {cell(row)}", markup=False)


def say_done(answer: "Row", sentence: str, *, as_json: bool) -> None:
    """Print that something was done: a sentence, or the object as it is now."""
    if as_json:
        print_json(answer)
    else:
        console().print(sentence, style="green", markup=False)


def confirm(question: str, *, is_confirmed: bool, terminal: TextIO | None = None) -> None:
    """Return when something that cannot be undone is meant; else end the command.

    Args:
        question: What is going to happen, as a sentence: "Key ci stops working at once."
        is_confirmed: Whether `--yes` was given.
        terminal: Where the answer comes from; stdin when None.

    Raises:
        CommandError: There is no terminal to ask on.
        Exit: The answer was no.
    """
    if is_confirmed:
        return
    terminal = sys.stdin if terminal is None else terminal
    if not terminal.isatty():
        detail = f"Not confirmed, so nothing was changed: {question}"
        raise CommandError(NOT_CONFIRMED, detail)
    # On stderr, so that stdout holds the answer alone.
    sys.stderr.write(f"{question} Go on? [y/N] ")
    sys.stderr.flush()
    if terminal.readline().strip().lower() not in {"y", "yes"}:
        sys.stderr.write("Nothing was changed.\n")
        raise typer.Exit(EXIT_FAILURE)
