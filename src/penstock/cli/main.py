"""The `penstock` command: where the commands are, and what is before them."""

from typing import Annotated, Any, cast

import typer

from penstock import __version__
from penstock.cli.commands import Commands, Place
from penstock.cli.output import CommandGroup, examples

_RUN = "Run it"
_FILES = "The platform as files"
_ASK = "See what was done"
_OWNERS = "Who may do what"
_CATALOG = "Where requests go"
_MUCH = "How much may be used"

_PLACES = {
    "dev": Place("dev", _RUN, "dev"),
    "doctor": Place("doctor", _RUN, "doctor"),
    "emulator": Place("emulator", _RUN, "emulator"),
    "apply": Place("apply", _FILES, "apply", "APPLY_EXAMPLES"),
    "export": Place("apply", _FILES, "export", "EXPORT_EXAMPLES"),
    "trace": Place("trace", _ASK, "trace"),
    "top": Place("top", _ASK, "top"),
    "debug": Place("debug", _ASK, "debug"),
    "logs": Place("logs", _ASK),
    "reconcile": Place("reconcile", _ASK, "reconcile"),
    "notices": Place("notices", _ASK, "notices"),
    "holds": Place("holds", _MUCH, "holds"),
    "version": Place("version", _RUN, "version"),
    "config": Place("config", _RUN),
    "import": Place("import_litellm", _RUN),
    "usage": Place("usage", _ASK),
    "audit": Place("audit", _ASK),
    "orgs": Place("orgs", _OWNERS),
    "projects": Place("projects", _OWNERS),
    "keys": Place("keys", _OWNERS),
    "members": Place("members", _OWNERS),
    "service-accounts": Place("service_accounts", _OWNERS),
    "upstreams": Place("upstreams", _CATALOG),
    "deployments": Place("deployments", _CATALOG),
    "routes": Place("routes", _CATALOG),
    "aliases": Place("aliases", _CATALOG),
    "grants": Place("grants", _CATALOG),
    "providers": Place("providers", _CATALOG),
    "credentials": Place("credentials", _CATALOG),
    "engines": Place("engines", _CATALOG),
    "registrations": Place("registrations", _CATALOG),
    "limits": Place("limits", _MUCH),
    "plans": Place("plans", _MUCH),
    "budgets": Place("budgets", _MUCH),
    "prices": Place("prices", _MUCH),
    "ledger": Place("ledger", _MUCH),
    "invoices": Place("invoices", _MUCH),
    "docs": Place("docs"),
}


class _Root(CommandGroup):
    """The command without words behind it."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = cast("dict[str, Any]", Commands(_PLACES))

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]  # noqa: ARG002
        return list(self.commands)


app = typer.Typer(
    name="penstock",
    cls=_Root,
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


def main() -> None:
    """Run the command line of this process; never returns."""
    app()
