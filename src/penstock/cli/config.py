"""`penstock config`: is penstock.yaml right?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.cli.errors import EXIT_FAILURE
from penstock.cli.instance import DataOption, data_folder
from penstock.cli.output import JsonOption, console, examples, print_json, print_table

if TYPE_CHECKING:
    from penstock.catalog.errors import Finding
    from penstock.catalog.model import PlatformFile

CONFIG_FILE = "penstock.yaml"
_SECTIONS = ("organizations", "projects", "keys", "upstreams", "routes", "aliases")
_SHOWN_NAMES = 8

app = typer.Typer(name="config", help="Look at the configuration.", no_args_is_help=True)


@app.command(
    epilog=examples(
        "penstock config check                    the data folder's",
        "penstock config check deploy/penstock.yaml",
        "penstock config check --json | jq '.findings[].problem'",
    )
)
def check(
    *,
    file: Annotated[
        Path | None,
        typer.Argument(help="File to check.", metavar="FILE", show_default="the data folder's"),
    ] = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check penstock.yaml and say everything that is wrong with it, line by line.

    Fields, names and references are checked, and whether the secrets that it names can be read.
    Nothing is changed. Exit code 1 when something is wrong.
    """
    from penstock.catalog import platform_file  # noqa: PLC0415  # start-up time
    from penstock.catalog.errors import PlatformFileError  # noqa: PLC0415  # as above

    path = file if file is not None else data_folder(data) / CONFIG_FILE
    try:
        # Keys are hashed only to be compared, so any pepper will do.
        platform_file.load_platform_file(path, b"config check")
        platform = platform_file.parse(
            path.read_text("utf-8-sig"), source=str(path), folder=path.absolute().parent
        )
    except PlatformFileError as error:
        _print_findings(path, error.findings, as_json=as_json)
        raise typer.Exit(EXIT_FAILURE) from None
    _print_summary(path, platform, as_json=as_json)


def _print_findings(path: Path, findings: tuple["Finding", ...], *, as_json: bool) -> None:
    if as_json:
        listed = [
            {
                "file": finding.source,
                "line": finding.mark.line,
                "column": finding.mark.column,
                "where": finding.where,
                "problem": finding.problem,
            }
            for finding in findings
        ]
        print_json({"file": str(path), "is_valid": False, "findings": listed})
        return
    out = console()
    for finding in findings:
        # The form that editors make clickable, so no wrapping and no markup.
        out.print(str(finding), markup=False)
    count = f"{len(findings)} faults" if len(findings) > 1 else "1 fault"
    console(is_error=True).print(f"{path}: {count} found.", style="bold red", markup=False)


def _print_summary(path: Path, platform: "PlatformFile", *, as_json: bool) -> None:
    names = {section: _names(getattr(platform, section)) for section in _SECTIONS}
    if as_json:
        print_json({"file": str(path), "is_valid": True, "findings": [], "summary": names})
        return
    rows = []
    for section, listed in names.items():
        more = f", ... ({len(listed)})" if len(listed) > _SHOWN_NAMES else ""
        rows.append((section, str(len(listed)), ", ".join(listed[:_SHOWN_NAMES]) + more))
    print_table(("Section", "Entries", "Names"), rows, right=("Entries",))
    console().print(f"{path} is valid.", style="bold green", markup=False)


def _names(entries: tuple[Any, ...]) -> list[str]:
    return [str(getattr(entry.item, "name", None) or entry.item.id) for entry in entries]
