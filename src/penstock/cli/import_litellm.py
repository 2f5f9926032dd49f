"""`penstock import`: other gateways' configuration becomes a penstock.yaml."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.cli.errors import BAD_CONFIG, BAD_OPTION, DATA_UNUSABLE, CommandError
from penstock.cli.output import JsonOption, console, examples, print_json

if TYPE_CHECKING:
    from penstock.catalog.litellm_model import LitellmImport

app = typer.Typer(
    name="import", help="Take over another gateway's configuration.", no_args_is_help=True
)


@app.callback()
def import_() -> None:
    """Take over another gateway's configuration."""


def _slug(what: str) -> Any:
    return typer.Option(help=f"Name of the {what} that gets everything.", metavar="NAME")


@app.command(
    "litellm",
    epilog=examples(
        "penstock import litellm config.yaml --output penstock.yaml",
        "penstock import litellm config.yaml --json | jq '.notes[] | select(.kind == \"lost\")'",
    ),
)
def litellm(
    *,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="LiteLLM's config.yaml.", show_default=False)
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            help="File to write; it must not be there yet.", metavar="FILE", show_default="stdout"
        ),
    ] = None,
    organization: Annotated[str, _slug("organization")] = "imported",
    project: Annotated[str, _slug("project")] = "imported",
    as_json: JsonOption = False,
) -> None:
    """Turn a LiteLLM config.yaml into a penstock.yaml, and list what it could not carry.

    No secret is copied: keys become references to environment variables, which are listed too.
    The penstock.yaml goes to stdout or to --output, everything else to stderr. With --json: one
    object with `text`, `notes` and `variables`.
    """
    found = _read(file, organization, project)
    if output is not None:
        _write(output, found.text)
    if as_json:
        print_json(_to_members(found, file, output))
        return
    if output is None:
        typer.echo(found.text, nl=False)
    _tell(found, output)


def _read(file: Path, organization: str, project: str) -> "LitellmImport":
    from penstock.catalog.errors import PlatformFileError  # noqa: PLC0415  # start-up time
    from penstock.catalog.litellm_import import import_litellm  # noqa: PLC0415  # as above

    try:
        text = file.read_text("utf-8-sig")
    except OSError as error:
        detail = f"{file} cannot be read: {error.strerror}."
        raise CommandError(BAD_CONFIG, detail, "Name LiteLLM's config.yaml.") from None
    except UnicodeDecodeError:
        detail = f"{file} is no UTF-8 text."
        raise CommandError(BAD_CONFIG, detail, "Name LiteLLM's config.yaml.") from None
    try:
        return import_litellm(
            text,
            source=str(file),
            organization=organization,
            project=project,
            variables=os.environ,
        )
    except PlatformFileError as error:
        faults = "\n".join(str(finding) for finding in error.findings)
        raise CommandError(BAD_CONFIG, faults, "Correct these lines, and try again.") from None
    except ValueError as error:
        raise CommandError(BAD_OPTION, f"--organization or --project: {error}.") from None


def _write(output: Path, text: str) -> None:
    try:
        # What is there may be somebody's work.
        with output.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError:
        detail = f"{output} is there already."
        raise CommandError(BAD_OPTION, detail, "Give --output another name.") from None
    except OSError as error:
        detail = f"{output} cannot be written: {error.strerror}."
        raise CommandError(DATA_UNUSABLE, detail, "Choose another --output.") from None


def _to_members(found: "LitellmImport", file: Path, output: Path | None) -> dict[str, Any]:
    notes = [
        {
            "kind": note.kind.value,
            "line": note.finding.mark.line,
            "column": note.finding.mark.column,
            "where": note.finding.where,
            "problem": note.finding.problem,
        }
        for note in found.notes
    ]
    return {
        "file": str(file),
        "output": None if output is None else str(output),
        "text": found.text,
        "notes": notes,
        "variables": list(found.variables),
    }


def _tell(found: "LitellmImport", output: Path | None) -> None:
    out = console(is_error=True)
    for note in found.notes:
        out.print(str(note), markup=False)
    if found.variables:
        names = ", ".join(found.variables)
        out.print(f"Set these variables where the agent runs: {names}.", markup=False)
    lost = sum(note.kind == "lost" for note in found.notes)
    written = "" if output is None else f"{output} is written. "
    counts = f"{len(found.notes)} notes, {lost} of them about what is lost."
    out.print(f"{written}{counts}", style="bold", markup=False)
