"""`penstock plans`: named sets of rules, and who has them."""

from typing import Annotated

import typer

from penstock.cli.instance import DataOption, connect
from penstock.cli.kinds import (
    NAME_AND_ID,
    Kind,
    NameArgument,
    add_delete,
    add_show,
    find_id,
    object_argument,
)
from penstock.cli.limit_rules import parse_rule, words_of_rule
from penstock.cli.limits import give_plan
from penstock.cli.options import option
from penstock.cli.output import JsonOption, examples
from penstock.cli.owners import (
    AccountOption,
    KeyOption,
    MemberOption,
    OwnerOptions,
    find_owner,
)
from penstock.cli.records import NONE, LimitOption, say_done
from penstock.cli.resolving import PLANS, OrgOption, ProjectOption, get_catalog_object

KIND = Kind(
    path=PLANS,
    columns=lambda _: (
        *NAME_AND_ID,
        ("Rules", lambda row: "; ".join(map(words_of_rule, row["rules"])) or NONE),
    ),
    expendable=("Id",),
    example="gold",
)

app = typer.Typer(
    name=KIND.group,
    help="Manage plans: named sets of limits that many can have.",
    no_args_is_help=True,
)

RuleOption = Annotated[
    list[str] | None,
    option(
        "--rule",
        "Rule: requests=600/60s, concurrency=20,per=key, tokens=900000/1d,alias=chat; repeat it.",
        "RULE",
    ),
]


@app.command(
    "create",
    epilog=examples(
        "penstock plans create gold --rule requests=600 --rule tokens=5000000/1d",
        "penstock plans create trial --rule requests=10 --rule concurrency=2,per=key",
    ),
)
def create(
    *,
    name: NameArgument,
    rule: RuleOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create a plan."""
    body = {"name": name, "rules": [parse_rule(text) for text in rule or ()]}
    with connect(data) as client:
        KIND.create(client, body, as_json=as_json)


@app.command("list", epilog=examples("penstock plans list", "penstock plans list --json"))
def list_all(
    *, limit: LimitOption = None, data: DataOption = None, as_json: JsonOption = False
) -> None:
    """List plans, oldest first. With --json: one object a line."""
    with connect(data) as client:
        KIND.show_all(client, {}, limit=limit, as_json=as_json)


add_show(app, KIND)


@app.command("update", epilog=examples("penstock plans update gold --rule requests=900"))
def update(
    *,
    name: Annotated[str, object_argument(KIND)],
    rule: RuleOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give a plan other rules, for all that have it: those that are named, and no others."""
    changes = {"rules": [parse_rule(text) for text in rule or ()]}
    with connect(data) as client:
        before = get_catalog_object(client, PLANS, name)
        KIND.change(client, before, changes, as_json=as_json)


add_delete(app, KIND)


@app.command(
    "assign",
    epilog=examples(
        "penstock plans assign gold --org acme", "penstock plans assign trial --key web-1"
    ),
)
def assign(
    *,
    name: Annotated[str, object_argument(KIND)],
    org: OrgOption = None,
    project: ProjectOption = None,
    key: KeyOption = None,
    member: MemberOption = None,
    account: AccountOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give somebody a plan instead of the one that they have; their own rules stay."""
    with connect(data) as client:
        owner = find_owner(client, OwnerOptions(org, project, key, member, account))
        row = give_plan(client, owner, find_id(client, PLANS, name))
        say_done(row, f"Plan {name} holds for {owner.words}.", as_json=as_json)


@app.command("unassign", epilog=examples("penstock plans unassign --org acme"))
def unassign(
    *,
    org: OrgOption = None,
    project: ProjectOption = None,
    key: KeyOption = None,
    member: MemberOption = None,
    account: AccountOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take the plan away from somebody; their own rules stay."""
    with connect(data) as client:
        owner = find_owner(client, OwnerOptions(org, project, key, member, account))
        row = give_plan(client, owner, None)
        say_done(row, f"No plan holds for {owner.words}.", as_json=as_json)
