"""`penstock apply` and `penstock export`: the platform as files."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.cli.config import finding_members
from penstock.cli.errors import EXIT_FAILURE
from penstock.cli.instance import DataOption, connect
from penstock.cli.output import JsonOption, console, examples, print_json
from penstock.cli.records import YesOption, confirm

if TYPE_CHECKING:
    from penstock.catalog.errors import Finding
    from penstock.cli.control_client import Row

EXIT_CHANGES = 3
"""A dry run found something to change."""
DEFAULT_SET = "default"

APPLY_EXAMPLES = examples(
    "penstock apply -f platform.yaml",
    "penstock apply -f platform/ --dry-run     what would change; exit code 3 if anything would",
    "penstock apply -f platform/ --prune --yes remove what the files had before and have no more",
)
EXPORT_EXAMPLES = examples(
    "penstock export > platform.yaml",
    "penstock export --set team-a > team-a.yaml",
)

_SetOption = Annotated[
    str,
    typer.Option(
        "--set",
        help="Name of the files that are applied together. Only what a set made is pruned by it.",
        metavar="NAME",
    ),
]


def apply(
    *,
    file: Annotated[
        list[Path],
        typer.Option(
            "--file",
            "-f",
            help="A penstock.yaml, or a folder: its *.yaml and *.yml files by name. Repeat it "
            "for several; they are applied as one.",
            metavar="PATH",
            show_default=False,
        ),
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be changed, and change nothing.")
    ] = False,
    prune: Annotated[
        bool,
        typer.Option(
            "--prune", help="Remove what this set made earlier and the files have no more."
        ),
    ] = False,
    set_name: _SetOption = DEFAULT_SET,
    yes: YesOption = False,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make the platform what files say: all of it, or nothing when anything is wrong.

    Applied again, it changes nothing. Secrets that the files refer to are read here and sent to
    the control plane, which keeps keys as hashes and credentials encrypted; none is ever shown.

    Exit codes: 0 when all is as the files say, or is now; 1 when something is wrong, and nothing
    was changed; 2 for wrong usage; 3 when --dry-run found something to change.
    """
    from penstock.catalog.errors import PlatformFileError  # noqa: PLC0415  # start-up time
    from penstock.cli import applying  # noqa: PLC0415  # as above

    try:
        document = applying.read_files(file)
        with connect(data) as client:

            def send(*, is_dry_run: bool) -> "Row":
                return applying.send(
                    client,
                    document,
                    set_name=set_name,
                    is_dry_run=is_dry_run,
                    is_pruning=prune,
                )

            if prune and not dry_run and not yes:
                _ask(send(is_dry_run=True), as_json=as_json)
            applied = send(is_dry_run=dry_run)
    except PlatformFileError as error:
        print_findings(error.findings, as_json=as_json)
        raise typer.Exit(EXIT_FAILURE) from None
    _show(applied, as_json=as_json)
    if dry_run and applied["changes"]:
        raise typer.Exit(EXIT_CHANGES)


def export(
    *,
    set_name: Annotated[
        str | None,
        typer.Option(
            "--set", help="Only what this set of files made.", metavar="NAME", show_default=False
        ),
    ] = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a penstock.yaml of what there is, to stdout; applied again, it changes nothing.

    It holds no secret: keys and credentials keep those that they have. What is archived or
    revoked, and keys that belong to people, are not in it.
    """
    from penstock.catalog.document import write_document  # noqa: PLC0415  # start-up time
    from penstock.cli.applying import EXPORT  # noqa: PLC0415  # as above

    with connect(data) as client:
        found = client.get(EXPORT, {} if set_name is None else {"set": set_name})
    if as_json:
        print_json(found["document"])
        return
    typer.echo("# Written by `penstock export`; `penstock apply` takes it.")
    typer.echo(write_document(found["document"]), nl=False)


def _ask(rehearsed: "Row", *, as_json: bool) -> None:
    """Show what would be done and ask, if anything would be removed."""
    from penstock.cli.diff_view import show_changes  # noqa: PLC0415  # start-up time

    count = sum(change["action"] == "delete" for change in rehearsed["changes"])
    if not count:
        return
    if not as_json:
        show_changes(rehearsed)
    what = "1 object is" if count == 1 else f"{count} objects are"
    confirm(f"{what} removed for good.", is_confirmed=False)


def _show(applied: "Row", *, as_json: bool) -> None:
    from penstock.cli.diff_view import show_changes, show_outcome  # noqa: PLC0415  # start-up time

    if as_json:
        print_json(applied)
        return
    show_changes(applied)
    show_outcome(applied)


def print_findings(findings: "tuple[Finding, ...]", *, as_json: bool) -> None:
    """Print everything that is wrong with a file, each at its place."""
    if as_json:
        listed: list[dict[str, Any]] = [finding_members(finding) for finding in findings]
        print_json({"is_valid": False, "findings": listed})
        return
    out = console()
    for finding in findings:
        # The form that editors make clickable, so no wrapping and no markup.
        out.print(str(finding), markup=False)
    count = f"{len(findings)} faults" if len(findings) > 1 else "1 fault"
    console(is_error=True).print(f"{count} found; nothing was changed.", style="bold red")
