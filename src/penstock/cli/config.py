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
_SHOWN_NAMES = 8
_TITLES = {
    "for_apply_only": "For `penstock apply` only; a node that serves from the file refuses it:",
    "unused": "Of no use as it stands:",
}
"""Of what is told of a valid file."""

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
    Nothing is changed. Exit code 1 when something is wrong. What only a control plane can use is
    listed: `penstock apply` takes it, and a node that serves from the file alone does not. So is
    what does nothing as it stands.
    """
    from penstock.catalog.compile import find_unsupported, find_unused  # noqa: PLC0415  # start-up time
    from penstock.catalog.errors import PlatformFileError  # noqa: PLC0415  # as above
    from penstock.catalog.platform_file import check_platform_file  # noqa: PLC0415  # as above

    path = file if file is not None else data_folder(data) / CONFIG_FILE
    try:
        platform = check_platform_file(path)
    except PlatformFileError as error:
        _print_findings(path, error.findings, as_json=as_json)
        raise typer.Exit(EXIT_FAILURE) from None
    told = {
        "for_apply_only": tuple(find_unsupported(platform)),
        "unused": tuple(find_unused(platform)),
    }
    _print_summary(path, platform, told, as_json=as_json)


def finding_members(finding: "Finding") -> dict[str, Any]:
    """Return a finding as programs are told of it."""
    return {
        "file": finding.source,
        "line": finding.mark.line,
        "column": finding.mark.column,
        "where": finding.where,
        "problem": finding.problem,
    }


def _print_findings(path: Path, findings: tuple["Finding", ...], *, as_json: bool) -> None:
    if as_json:
        listed = [finding_members(finding) for finding in findings]
        print_json({"file": str(path), "is_valid": False, "findings": listed})
        return
    out = console()
    for finding in findings:
        # The form that editors make clickable, so no wrapping and no markup.
        out.print(str(finding), markup=False)
    count = f"{len(findings)} faults" if len(findings) > 1 else "1 fault"
    console(is_error=True).print(f"{path}: {count} found.", style="bold red", markup=False)


def _print_summary(
    path: Path, platform: "PlatformFile", told: "dict[str, tuple[Finding, ...]]", *, as_json: bool
) -> None:
    from penstock.catalog.schemas import SECTIONS  # noqa: PLC0415  # start-up time

    names = {section: _names(getattr(platform, section)) for section in SECTIONS}
    if as_json:
        print_json(
            {
                "file": str(path),
                "is_valid": True,
                "findings": [],
                **{name: [finding_members(each) for each in found] for name, found in told.items()},
                "summary": names,
            }
        )
        return
    rows = []
    for section, listed in names.items():
        more = f", ... ({len(listed)})" if len(listed) > _SHOWN_NAMES else ""
        if listed:
            rows.append((section, str(len(listed)), ", ".join(listed[:_SHOWN_NAMES]) + more))
    print_table(("Section", "Entries", "Names"), rows, right=("Entries",))
    out = console()
    for name, found in told.items():
        if found:
            out.print(_TITLES[name])
        for finding in found:
            out.print(f"  {finding}", markup=False)
    out.print(f"{path} is valid.", style="bold green", markup=False)


def _names(entries: tuple[Any, ...]) -> list[str]:
    """Return what entries are called; a grant by its alias, a member by its subject."""
    named = ("name", "subject", "alias")
    return [
        str(next(getattr(entry.item, name) for name in named if hasattr(entry.item, name)))
        for entry in entries
    ]
