"""`penstock prices import` and `export`: price books as files."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.cli.apply import EXIT_CHANGES, print_findings
from penstock.cli.errors import EXIT_FAILURE, ControlRefusedError
from penstock.cli.instance import DataOption, connect
from penstock.cli.output import JsonOption, console, examples, print_json, print_table
from penstock.cli.records import time_cell
from penstock.cli.resolving import PRICE_BOOKS, PRICES
from penstock.kit.files import why_unread

if TYPE_CHECKING:
    from penstock.catalog.errors import Finding, Mark
    from penstock.cli.control_client import ControlClient, Row

IMPORT = f"{PRICES}/import"
IMPORT_EXAMPLES = examples(
    "penstock prices import prices.yaml --dry-run     what would change; exit code 3 if anything",
    "penstock prices import prices.csv",
)
EXPORT_EXAMPLES = examples(
    "penstock prices export > prices.yaml",
    "penstock prices export --current > prices.yaml   for another installation",
)
_INVALID = "err:control:catalog:document_invalid"
_TIMEOUT_S = 300.0
_PLACE = ("upstream", "service_tier")
_FIGURES = ("input", "cached_input", "output")
_COLUMNS = ("model", "currency", "book", *_PLACE, *_FIGURES, "valid_from", "valid_to")


@dataclass(frozen=True, slots=True)
class PriceFile:
    """What a price file says, and where."""

    source: str
    prices: list[Any]
    marks: "list[dict[str, Mark]]"
    """Of each price: where its members are, and itself under ""."""

    def locate(self, path: list[str | int], where: str, problem: str) -> "Finding":
        """Return a fault at its place in the file."""
        from penstock.catalog.errors import Finding, Mark  # noqa: PLC0415  # start-up time

        match path:
            case ["prices", int(index), *members] if index < len(self.marks):
                marks = self.marks[index]
                mark = marks.get(str(members[0]) if members else "", marks[""])
            case _:
                mark = Mark()
        return Finding(self.source, mark, where, problem)


def import_prices(
    *,
    file: Annotated[Path, typer.Argument(metavar="FILE", show_default=False)],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be changed, and change nothing.")
    ] = False,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Have models cost what a YAML, JSON or CSV file says: all of it, or nothing.

    Imported again, it changes nothing. Prices that are not in the file stay.

    Exit codes: 0 when all is as the file says, or is now; 1 when something is wrong, and nothing
    was changed; 2 for wrong usage; 3 when --dry-run found something to change.
    """
    from penstock.catalog.errors import PlatformFileError  # noqa: PLC0415  # start-up time

    try:
        found = read_price_file(file)
        with connect(data) as client:
            answer = _send(client, found, is_dry_run=dry_run)
            books = _book_names(client)
    except PlatformFileError as error:
        print_findings(error.findings, as_json=as_json)
        raise typer.Exit(EXIT_FAILURE) from None
    if as_json:
        print_json(answer)
    else:
        _show(answer, books)
    if dry_run and any(one["action"] != "none" for one in answer["data"]):
        raise typer.Exit(EXIT_CHANGES)


def export_prices(
    *,
    current: Annotated[
        bool,
        typer.Option(
            "--current",
            help="Without what has ended; what holds now begins when it is imported.",
        ),
    ] = False,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write all prices to stdout as `import` reads them; imported again, they change nothing."""
    from penstock.catalog.document import write_document  # noqa: PLC0415  # start-up time

    with connect(data) as client:
        books = _book_names(client)
        rows = list(client.rows(PRICES, {}))
    if current:
        rows = _holding(rows)
    document = {"prices": [_write(row, books) for row in rows]}
    if as_json:
        print_json(document)
        return
    typer.echo("# Written by `penstock prices export`; `penstock prices import` takes it.")
    typer.echo(write_document(document), nl=False)


def read_price_file(path: Path) -> PriceFile:
    """Return what a file says.

    Raises:
        PlatformFileError: It cannot be read as prices.
    """
    from penstock.catalog.errors import (  # noqa: PLC0415  # start-up time
        Finding,
        Mark,
        PlatformFileError,
    )

    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        problem = f"cannot be read: {why_unread(error)}; name a file of UTF-8 text"
        raise PlatformFileError([Finding(str(path), Mark(), "file", problem)]) from None
    return _read_csv(text, str(path)) if path.suffix == ".csv" else _read_yaml(text, str(path))


def _read_yaml(text: str, source: str) -> PriceFile:
    """Read YAML, and JSON, which is YAML."""
    from penstock.catalog.document import read_document  # noqa: PLC0415  # start-up time
    from penstock.catalog.errors import Finding, PlatformFileError  # noqa: PLC0415  # as above

    root, findings = read_document(text, source)
    prices = root.fields.get("prices")
    for name in root.fields.keys() - {"prices"}:
        mark = root.key_marks[name]
        findings.append(Finding(source, mark, name, "is no field of a price file; remove it"))
    if prices is None or not isinstance(prices.value, list):
        problem = "has no list of prices; write `prices:` and an entry for each below it"
        findings.append(Finding(source, root.mark, "prices", problem))
    if findings:
        raise PlatformFileError(findings)
    items = [] if prices is None else prices.items
    marks = [{**node.key_marks, "": node.mark} for node in items]
    return PriceFile(source, [node.plain() for node in items], marks)


def _read_csv(text: str, source: str) -> PriceFile:
    from penstock.catalog.errors import (  # noqa: PLC0415  # start-up time
        Finding,
        Mark,
        PlatformFileError,
    )

    findings: list[Finding] = []
    reader = csv.DictReader(text.splitlines(), strict=True)
    prices: list[Any] = []
    marks = []
    try:
        names = reader.fieldnames or ()
        for name in [name for name in names if name not in _COLUMNS]:
            problem = f"is no column of a price file; use {', '.join(_COLUMNS)}"
            findings.append(Finding(source, Mark(), name or "file", problem))
        for row in reader:
            mark = Mark(reader.line_num)
            if None in row or None in row.values():
                problem = f"has not one value for each of {len(names)} columns; correct the commas"
                findings.append(Finding(source, mark, "line", problem))
            prices.append({name: value for name, value in row.items() if value})
            marks.append({"": mark})
    except csv.Error as error:
        problem = f"is no valid CSV: {error}; correct the line"
        findings.append(Finding(source, Mark(reader.line_num), "file", problem))
    if findings:
        raise PlatformFileError(findings)
    return PriceFile(source, prices, marks)


def _send(client: "ControlClient", found: PriceFile, *, is_dry_run: bool) -> "Row":
    from penstock.catalog.errors import PlatformFileError  # noqa: PLC0415  # start-up time

    body = {"is_dry_run": is_dry_run, "prices": found.prices}
    try:
        return client.change("POST", IMPORT, body, timeout_s=_TIMEOUT_S)
    except ControlRefusedError as error:
        if error.code != _INVALID or not error.faults:
            raise
        raise PlatformFileError(
            found.locate(
                fault.get("path") or [], str(fault.get("parameter")), str(fault.get("detail"))
            )
            for fault in error.faults
        ) from None


def _book_names(client: "ControlClient") -> dict[str, str]:
    return {str(row["id"]): str(row["name"]) for row in client.rows(PRICE_BOOKS, {})}


def _show(answer: "Row", books: dict[str, str]) -> None:
    changes = [one for one in answer["data"] if one["action"] != "none"]
    same = len(answer["data"]) - len(changes)
    if changes:
        headings = ("Model", "Book", "From (UTC)", "Input", "Cached", "Output", "")
        print_table(headings, [_line(one, books) for one in changes], expendable=("Cached",))
    done = "To be set" if answer["is_dry_run"] else "Set"
    stay = f"{same} as they are" if changes else "All prices are as the file says"
    console().print(f"{done}: {len(changes)}; {stay}." if changes else f"{stay}.", markup=False)


def _line(change: "Row", books: dict[str, str]) -> list[str]:
    price, before = change["price"], change["before"]
    cells = [
        price[name]
        if before is None or before[name] == price[name]
        else f"{before[name]} -> {price[name]}"
        for name in _FIGURES
    ]
    place = ", ".join(str(price[name]) for name in _PLACE if price[name])
    model = f"{price['alias']} ({place})" if place else str(price["alias"])
    book = books.get(str(price["book_id"]), str(price["book_id"]))
    also = "replaces" if change["action"] == "replace" else ""
    return [model, book, time_cell(price["valid_from"]), *cells, also]


def _holding(rows: list["Row"]) -> list["Row"]:
    """Return prices that hold now, without their start, and those to come."""
    from datetime import UTC, datetime  # noqa: PLC0415  # start-up time

    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    current: dict[tuple[str, ...], Row] = {}
    later = []
    for row in sorted(rows, key=lambda row: str(row["valid_from"])):
        if row["valid_from"] > now:
            later.append(row)
        else:
            place = tuple(str(row[name]) for name in ("book_id", "alias", *_PLACE))
            current[place] = row
    holding = [row for row in current.values() if row["valid_to"] is None or row["valid_to"] > now]
    return [{**row, "valid_from": None} for row in holding] + later


def _write(row: "Row", books: dict[str, str]) -> "Row":
    figures = {"rates": row["rates"]} if row["rates"] else {name: row[name] for name in _FIGURES}
    members = {
        "model": row["alias"],
        "currency": row["currency"],
        "book": books.get(str(row["book_id"])),
        **{name: row[name] for name in _PLACE},
        **figures,
        "valid_from": row["valid_from"],
        "valid_to": row["valid_to"],
    }
    return {name: value for name, value in members.items() if value}
