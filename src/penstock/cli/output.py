"""How commands speak: tables and colours for people, JSON for programs."""

import sys
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import typer
from typer.core import TyperGroup

from penstock.cli.errors import CommandError

if TYPE_CHECKING:
    from rich.console import Console

_JSON = "penstock.cli.json"
_ENDLESS = 100_000
"""Width of an output that is no terminal."""
_GAP = 3
"""What rich puts between two columns."""
_EDGE = 1


def _remember(ctx: typer.Context, *, value: bool) -> bool:
    # The place that prints errors is far from the command that knows the option.
    ctx.meta[_JSON] = value
    return value


JsonOption = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Print JSON for programs instead of tables.",
        callback=lambda ctx, value: _remember(ctx, value=value),
        is_eager=True,
    ),
]


def examples(*lines: str) -> str:
    """Return the epilog of a command's help with these example lines, as Markdown."""
    return "\n".join(("Examples:", "", "```text", *lines, "```"))


def console(*, is_error: bool = False) -> "Console":
    """Return a console for stdout or stderr.

    Colours only when it is a terminal; NO_COLOR and FORCE_COLOR are honoured by rich itself.
    """
    from rich.console import Console  # noqa: PLC0415  # start-up time of --json commands

    return Console(stderr=is_error, highlight=False, soft_wrap=True)


def printable(text: str) -> str:
    r"""Return a text that a terminal only shows: what would steer it is escaped.

    >>> printable("a\x1b[2Jb\u202ec"), printable("Zürich")
    ('a\\x1b[2Jb\\u202ec', 'Zürich')
    """
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


def print_json(value: Any) -> None:
    """Print one JSON document on one line of stdout."""
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")


def print_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Collection[str] = (),
    expendable: Sequence[str] = (),
) -> None:
    """Print a table on stdout; a line below it says which columns were left out, if any.

    Args:
        columns: Headings.
        rows: Cells as plain text, one per column.
        right: Headings of the columns that are aligned to the right (figures).
        expendable: Headings of the columns that are left out, in this order, as far as the
            terminal is too narrow. Nothing is left out when stdout is no terminal.
    """
    from rich import box  # noqa: PLC0415  # start-up time of --json commands
    from rich.table import Table  # noqa: PLC0415  # as above
    from rich.text import Text  # noqa: PLC0415  # as above

    out = console()
    if not out.is_terminal:
        # A pipe has no width: nothing is folded or cut for it.
        out.width = _ENDLESS
    left_out = columns_left_out(columns, rows, expendable, out.width)
    table = Table(box=box.SIMPLE_HEAD)
    shown = [index for index, column in enumerate(columns) if column not in left_out]
    for index in shown:
        justify: Literal["left", "right"] = "right" if columns[index] in right else "left"
        table.add_column(columns[index], justify=justify, overflow="fold")
    for row in rows:
        table.add_row(*(Text(row[index]) for index in shown))
    out.print(table)
    if left_out:
        names = ", ".join(left_out)
        out.print(f"(Not shown: {names}. A wider terminal or --json shows them.)", style="dim")


def columns_left_out(
    columns: Sequence[str], rows: Sequence[Sequence[str]], expendable: Sequence[str], width: int
) -> list[str]:
    """Return which columns to leave out so that a table fits, in the order of `expendable`.

    >>> columns_left_out(("name", "id"), [("a", "1234567890")], ("id",), 20)
    ['id']
    >>> columns_left_out(("name", "id"), [("a", "1234567890")], ("id",), 30)
    []
    """
    needed = {
        column: _GAP + max(len(column), *(len(row[index]) for row in rows))
        for index, column in enumerate(columns)
    }
    left_out: list[str] = []
    for column in expendable:
        if _EDGE + sum(needed.values()) <= width:
            break
        del needed[column]
        left_out.append(column)
    return left_out


def print_error(error: CommandError, *, as_json: bool = False) -> None:
    """Print what went wrong and what to do, on stderr."""
    if as_json:
        body = {"code": error.code, "message": str(error), "remedy": error.remedy}
        sys.stderr.write(msgspec.json.encode({"error": body}).decode() + "\n")
        return
    from rich.text import Text  # noqa: PLC0415  # start-up time

    out = console(is_error=True)
    out.print(Text.assemble(("Error: ", "bold red"), str(error)))
    out.print(Text.assemble(("What to do: ", "bold"), error.remedy))


class CommandGroup(TyperGroup):
    """The root of the commands: turns a `CommandError` into words and an exit code."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]  # noqa: D102
        try:
            return super().invoke(ctx)
        except CommandError as error:
            print_error(error, as_json=bool(ctx.meta.get(_JSON)))
            raise typer.Exit(error.exit_code) from None
