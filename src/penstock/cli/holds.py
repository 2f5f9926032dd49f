"""`penstock holds`: what workers may spend of budgets without asking."""

from typing import Annotated

from penstock.cli.bodies import given
from penstock.cli.instance import DataOption, connect
from penstock.cli.options import option
from penstock.cli.output import JsonOption, examples
from penstock.cli.records import LimitOption, show_list, text_of, time_of
from penstock.cli.resolving import HOLDS, OrgOption, ProjectOption, find_place

EXAMPLES = examples("penstock holds", "penstock holds --project chat --json")


def holds(
    *,
    org: OrgOption = None,
    project: ProjectOption = None,
    budget: Annotated[str | None, option("--budget", "Of this budget, by id.", "BUDGET")] = None,
    limit: LimitOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """List what workers hold of budgets, oldest first. With --json: one object a line."""
    with connect(data) as client:
        filters = {**find_place(client, org, project).filters, **given(budget_id=budget)}
        show_list(
            client.rows(HOLDS, filters),
            (
                ("Budget", text_of("budget_id")),
                ("Label", text_of("label")),
                ("Worker", lambda row: f"{row['producer']} ({row['epoch']})"),
                ("Amount", lambda row: f"{row['amount']} {row['currency']}"),
                ("Used", text_of("used")),
                ("Held", text_of("held")),
                ("Since (UTC)", time_of("created_at")),
                ("Id", text_of("id")),
            ),
            limit=limit,
            as_json=as_json,
            nothing="No worker holds anything.",
            expendable=("Id", "Since (UTC)", "Label"),
        )
