"""`penstock usage export`: usage events, costs of days, or FOCUS rows, as a file."""

import hashlib
import sys
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from penstock.cli.errors import BAD_OPTION, CommandError
from penstock.cli.instance import DataOption, connect
from penstock.cli.options import option
from penstock.cli.output import console, examples
from penstock.cli.resolving import find_usage_filters
from penstock.cli.usage_figures import (
    KeyOption,
    ModelOption,
    MonthOption,
    OrganizationOption,
    ProjectOption,
    find_span,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

EXPORT = "/api/v1/usage/export"
EXAMPLES = examples(
    "penstock usage export --since 7d --format jsonl | jq .input_tokens",
    "penstock usage export --rows costs --month 2026-11 -o november.csv",
    "penstock usage export --format focus --month 2026-11 -o focus.csv",
    "penstock usage export --month 2026-11 --format parquet -o usage.parquet",
)


class ExportFormat(StrEnum):
    """How rows are written."""

    CSV = "csv"
    JSONL = "jsonl"
    PARQUET = "parquet"
    CLOUDEVENTS = "cloudevents"
    FOCUS = "focus"


class ExportRows(StrEnum):
    """Which rows are written."""

    EVENTS = "events"
    COSTS = "costs"
    FOCUS = "focus"


def export(  # noqa: PLR0913  # each option is a parameter: Typer reads them from here
    *,
    file_format: Annotated[
        ExportFormat,
        typer.Option(
            "--format", help="How rows are written; focus is CSV, or Parquet for FILE.parquet."
        ),
    ] = ExportFormat.CSV,
    rows: Annotated[
        ExportRows,
        typer.Option(help="Each event; each day's costs; or each day's by price, as FOCUS 1.2."),
    ] = ExportRows.EVENTS,
    organization: OrganizationOption = None,
    project: ProjectOption = None,
    key: KeyOption = None,
    model: ModelOption = None,
    since: Annotated[
        str | None,
        option(
            "--since", "At this time or later: ISO 8601 (UTC without an offset), an age.", "TIME"
        ),
    ] = None,
    until: Annotated[str | None, option("--until", "Before this time; as --since.", "TIME")] = None,
    month: MonthOption = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Where to, instead of to stdout.", metavar="FILE", dir_okay=False
        ),
    ] = None,
    data: DataOption = None,
) -> None:
    """Write usage events, costs or FOCUS rows as a file; no more than a piece is held at a time.

    A file is there when all of it is: one that breaks off leaves nothing behind.
    """
    is_focus = ExportFormat.FOCUS is file_format or ExportRows.FOCUS is rows
    wanted = {
        **find_span(since, until, month),
        "rows": "focus" if is_focus else rows.value,
        "format": _find_format(file_format, output),
    }
    if model is not None:
        wanted["model"] = model
    if output is None and wanted["format"] == ExportFormat.PARQUET and sys.stdout.isatty():
        message = "Parquet is nothing that a terminal can show."
        raise CommandError(BAD_OPTION, message, "Name a file: -o usage.parquet.")
    with connect(data) as client:
        wanted |= find_usage_filters(client, organization, project, key)
        pieces = client.download(EXPORT, wanted)
        if output is None:
            _copy(pieces, sys.stdout.buffer)
            sys.stdout.flush()
            return
        size, digest = _write(pieces, output)
    console(is_error=True).print(f"{output}: {size:,} bytes, SHA-256 {digest}", markup=False)


def _find_format(file_format: ExportFormat, output: Path | None) -> str:
    if file_format is not ExportFormat.FOCUS:
        return file_format.value
    is_parquet = output is not None and output.suffix == ".parquet"
    return (ExportFormat.PARQUET if is_parquet else ExportFormat.CSV).value


def _write(pieces: "Iterator[bytes]", output: Path) -> tuple[int, str]:
    """Write a file beside its place, and put it there when it is whole."""
    part = output.with_name(f".{output.name}.part")
    try:
        with ExitStack() as stack:
            stack.callback(part.unlink, missing_ok=True)
            with part.open("wb") as file:
                size, digest = _copy(pieces, file)
            part.replace(output)
    except OSError as error:
        detail = f"{output} cannot be written: {error.strerror}."
        raise CommandError(BAD_OPTION, detail, "Name another file.") from None
    return size, digest


def _copy(pieces: "Iterator[bytes]", file: BinaryIO) -> tuple[int, str]:
    size, digest = 0, hashlib.sha256()
    for piece in pieces:
        file.write(piece)
        digest.update(piece)
        size += len(piece)
    return size, digest.hexdigest()
