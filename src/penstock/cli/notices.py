"""`penstock notices`: what there is to be told, of budgets and of usage."""

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.cli.bodies import given
from penstock.cli.instance import DataOption, connect
from penstock.cli.options import option
from penstock.cli.output import JsonOption, examples, print_json
from penstock.cli.resolving import OrgOption, find_place

if TYPE_CHECKING:
    from penstock.cli.control_client import ControlClient, Row

NOTICES = "/api/v1/notices"
EXAMPLES = examples(
    "penstock notices",
    "penstock notices --follow --json | ./tell-somebody",
    "penstock notices --after 81234.17 --json",
)
_FOLLOW_S = 2.0
_COLUMNS = ("created_at", "topic", "organization_id", "key", "cursor")


def notices(
    *,
    org: OrgOption = None,
    after: Annotated[
        str | None, option("--after", "Behind this cursor; from the oldest on without.", "CURSOR")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with new ones until Ctrl-C.")
    ] = False,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show alerts of budgets, exhausted budgets, empty wallets and usage that was put aside.

    With --json: one object a line, oldest first. Keep the `cursor` of the last one that you acted
    on, and go on behind it with --after: so none is missed, and one that comes twice has the same
    `id`.
    """
    with connect(data) as client:
        filters = find_place(client, org, None).filters
        try:
            while True:
                wanted = {**filters, **given(after=after)}
                after, count = _show(client, wanted, as_json=as_json)
                if not follow:
                    break
                time.sleep(_FOLLOW_S)
        except KeyboardInterrupt:
            # The way to end it, so no failure.
            return
        if not count and not as_json:
            typer.echo("There are no notices.")


def _show(client: "ControlClient", filters: dict[str, str], *, as_json: bool) -> tuple[str, int]:
    """Print what there is now, and return the cursor behind it and how much it was."""
    count = 0
    while True:
        page: Row = client.get(NOTICES, filters)
        for row in page["data"]:
            if as_json:
                print_json(row)
            else:
                typer.echo("  ".join(str(row[name]) for name in _COLUMNS))
        sys.stdout.flush()
        filters = {**filters, "after": page["cursor"]}
        count += len(page["data"])
        if not page["data"]:
            return str(page["cursor"]), count
