"""The `penstock` command: puts the command groups together."""

from typing import Annotated

import typer

from penstock import __version__
from penstock.cli import (
    aliases,
    apply,
    audit,
    budgets,
    config,
    credentials,
    deployments,
    dev,
    docs,
    doctor,
    emulator,
    grants,
    holds,
    import_litellm,
    keys,
    ledger,
    limits,
    members,
    notices,
    orgs,
    plans,
    prices,
    projects,
    providers,
    reconcile,
    routes,
    service_accounts,
    upstreams,
    usage,
)
from penstock.cli.output import CommandGroup, JsonOption, examples, print_json

app = typer.Typer(
    name="penstock",
    cls=CommandGroup,
    help="Penstock: a multi-tenant AI inference gateway.",
    epilog=examples(
        "penstock dev           run everything on this machine and get an API key",
        "penstock usage         who used how many tokens",
        "penstock doctor        whether all is well, and what to do if not",
        "penstock keys create   give a program an API key",
    ),
    no_args_is_help=True,
    rich_markup_mode="markdown",
    # Expected failures are told in words; a bug shows Python's own traceback, without locals,
    # which could hold secrets.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(*, value: bool) -> None:
    if value:
        typer.echo(f"penstock {__version__}")
        raise typer.Exit


@app.callback()
def root(
    *,
    _version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Show the version and exit.",
            callback=lambda value: _print_version(value=value),
            is_eager=True,
        ),
    ] = False,
) -> None:
    """Penstock: a multi-tenant AI inference gateway."""


_RUN = "Run it"
_FILES = "The platform as files"
_ASK = "See what was done"
_OWNERS = "Who may do what"
_CATALOG = "Where requests go"
_MUCH = "How much may be used"

app.command("dev", epilog=dev.EXAMPLES, rich_help_panel=_RUN)(dev.dev)
app.command("doctor", epilog=doctor.EXAMPLES, rich_help_panel=_RUN)(doctor.doctor)
app.command("emulator", epilog=emulator.EXAMPLES, rich_help_panel=_RUN)(emulator.emulator)
app.add_typer(config.app, rich_help_panel=_RUN)
app.command("apply", epilog=apply.APPLY_EXAMPLES, rich_help_panel=_FILES)(apply.apply)
app.command("export", epilog=apply.EXPORT_EXAMPLES, rich_help_panel=_FILES)(apply.export)
app.add_typer(import_litellm.app, rich_help_panel=_RUN)
app.add_typer(usage.app, rich_help_panel=_ASK)
app.command("reconcile", epilog=reconcile.EXAMPLES, rich_help_panel=_ASK)(reconcile.reconcile)
app.command("notices", epilog=notices.EXAMPLES, rich_help_panel=_ASK)(notices.notices)
app.add_typer(audit.app, rich_help_panel=_ASK)
for group in (orgs, projects, keys, members, service_accounts):
    app.add_typer(group.app, rich_help_panel=_OWNERS)
for group in (upstreams, deployments, routes, aliases, grants, providers, credentials):
    app.add_typer(group.app, rich_help_panel=_CATALOG)
for group in (limits, plans, budgets, prices, ledger):
    app.add_typer(group.app, rich_help_panel=_MUCH)
app.command("holds", epilog=holds.EXAMPLES, rich_help_panel=_MUCH)(holds.holds)
app.add_typer(docs.app)


@app.command(rich_help_panel=_RUN)
def version(*, as_json: JsonOption = False) -> None:
    """Show the version of Penstock and of Python."""
    import platform  # noqa: PLC0415  # start-up time

    python = platform.python_version()
    if as_json:
        print_json({"penstock": __version__, "python": python})
    else:
        typer.echo(f"penstock {__version__} (Python {python})")


def main() -> None:
    """Run the command line of this process; never returns."""
    app()
