"""`penstock limits`: how much organizations, projects, keys, members and accounts may use."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from penstock.cli.bodies import given
from penstock.cli.errors import BAD_OPTION, NOT_FOUND, CommandError, ControlRefusedError
from penstock.cli.instance import DataOption, connect
from penstock.cli.kinds import find_id
from penstock.cli.limit_rules import (
    RULE_COLUMNS,
    build_slot,
    limit_cell,
    split_rules,
    words_of_rule,
)
from penstock.cli.options import option
from penstock.cli.output import JsonOption, console, examples, print_json, print_table
from penstock.cli.owners import (
    AccountOption,
    KeyOption,
    MemberOption,
    Owner,
    OwnerOptions,
    find_owner,
    name_owner,
)
from penstock.cli.records import (
    NONE,
    Column,
    LimitOption,
    YesOption,
    confirm,
    say_done,
    show_list,
    time_cell,
)
from penstock.cli.resolving import LIMITS, PLANS, NameBook, OrgOption, ProjectOption, find_place
from penstock.cli.times import format_duration, format_time, parse_deadline
from penstock.contract.limits import Enforcement, Metric

if TYPE_CHECKING:
    from penstock.cli.control_client import ControlClient, Row

app = typer.Typer(
    name="limits",
    help="Manage limits: how much may be used in a time, or at once.",
    no_args_is_help=True,
)

_TRIES = 5
"""How often a change is made anew because others changed the same at the same time."""
_RACES = {"err:control:storage:version_conflict", "err:control:limits:exist"}
_WINDOW = option("--window", "How long it counts: 60s, 1h, 1d, 31d. 60s without.", "TIME")
_ALIAS = option("--alias", "Only requests for this model name.", "ALIAS")
_MODEL = option("--model", "Only requests that go to this model of an upstream.", "MODEL")
LABEL = option("--label", "Only requests of keys with this label.", "NAME=VALUE")
MetricOption = Annotated[
    Metric, typer.Option("--metric", help="What is counted.", show_default=False)
]
PerOption = Annotated[
    Literal["key", "member"] | None,
    typer.Option(
        "--per", help="Each key or member on its own; all together without.", show_default=False
    ),
]


@app.command(
    "set",
    epilog=examples(
        "penstock limits set --key web-1 --metric requests --limit 600",
        "penstock limits set --org acme --metric tokens --limit 5000000 --window 1d",
        "penstock limits set --project chat --metric concurrency --limit 20 --per key",
        "penstock limits set --org acme --label team=search --metric requests --limit 6000",
        "penstock limits set --key web-1 --metric requests --raise-to 6000 --until 2h",
    ),
)
def set_rule(  # noqa: PLR0913  # each option is a parameter: Typer reads them from here
    *,
    org: OrgOption = None,
    project: ProjectOption = None,
    key: KeyOption = None,
    member: MemberOption = None,
    account: AccountOption = None,
    metric: MetricOption,
    limit: Annotated[
        int | None, option("--limit", "How much, a whole number; as it was without.", "N")
    ] = None,
    window: Annotated[str | None, _WINDOW] = None,
    alias: Annotated[str | None, _ALIAS] = None,
    model: Annotated[str | None, _MODEL] = None,
    per: PerOption = None,
    label: Annotated[str | None, LABEL] = None,
    enforcement: Annotated[
        Enforcement | None,
        typer.Option(help="Refuse, only say so, or say what would be.", show_default="hard"),
    ] = None,
    raise_to: Annotated[
        int | None, option("--raise-to", "More for a time, together with --until.", "N")
    ] = None,
    until: Annotated[
        str | None, option("--until", "How long: 2h, 7d, or ISO 8601 in UTC.", "TIME")
    ] = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Set a rule, or change the one that counts the same in the same window.

    What is not named stays as it was. Rules of all that a key belongs to hold; the tightest
    decides.
    """
    slot = build_slot(metric, window, alias=alias, model=model, per=per, label=label)
    changes = given(limit=limit, enforcement=enforcement, **_parse_raise(raise_to, until))

    def replace(rules: "list[Row]") -> "list[Row]":
        before, others = split_rules(rules, slot)
        if before is None and limit is None:
            message = "There is no such rule yet, so it needs a limit."
            raise CommandError(BAD_OPTION, message, "Add --limit N.")
        return [*others, {**slot, **(before or {}), **changes}]

    with connect(data) as client:
        owner = find_owner(client, OwnerOptions(org, project, key, member, account))
        row = _change_rules(client, owner, replace)
        (rule,) = (one for one in row["rules"] if split_rules([one], slot)[0] is not None)
        where = {name: value for name, value in row.items() if name.endswith("_id")}
        span = rule["window_s"]
        window = f" in {format_duration(span)}" if span else ""
        sentence = f"{limit_cell(rule)} {metric}{window} hold for {owner.words}."
        say_done({**rule, **where, "limits_id": row["id"]}, sentence, as_json=as_json)


@app.command(
    "show",
    epilog=examples(
        "penstock limits show --key web-1", "penstock limits show --project chat --json"
    ),
)
def show(
    *,
    org: OrgOption = None,
    project: ProjectOption = None,
    key: KeyOption = None,
    member: MemberOption = None,
    account: AccountOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show all rules that bear on somebody, and how much of each is used."""
    with connect(data) as client:
        owner = find_owner(client, OwnerOptions(org, project, key, member, account))
        answer = client.get(f"{LIMITS}/use", owner.body)
        if as_json:
            print_json(answer)
            return
        if not answer["data"]:
            console().print(f"Nothing limits {owner.words}.", markup=False)
            return
        names = NameBook(client)
        columns: list[Column] = [
            ("Whose", lambda row: name_owner(names, row)),
            ("Plan", lambda row: row["plan"] or NONE),
            *RULE_COLUMNS,
            ("Used", lambda row: NONE if row["used"] is None else f"{row['used']:,}"),
            ("As of (UTC)", lambda row: time_cell(row["used_at"])),
        ]
        cells = [[cell(row) for _, cell in columns] for row in answer["data"]]
        print_table([heading for heading, _ in columns], cells, expendable=("As of (UTC)", "Plan"))


@app.command(
    "list", epilog=examples("penstock limits list --org acme", "penstock limits list --json")
)
def list_all(
    *,
    org: OrgOption = None,
    project: ProjectOption = None,
    plan: Annotated[str | None, option("--plan", "Of those with this plan.", "PLAN")] = None,
    limit: LimitOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """List whom limits are set for, oldest first. With --json: one object a line."""
    with connect(data) as client:
        filters = {**find_place(client, org, project).filters}
        filters |= given(plan_id=find_id(client, PLANS, plan))
        names = NameBook(client)
        show_list(
            client.rows(LIMITS, filters),
            (
                ("Whose", lambda row: name_owner(names, row)),
                ("Plan", lambda row: names.name(PLANS, row["plan_id"])),
                ("Rules", lambda row: "; ".join(map(words_of_rule, row["rules"])) or NONE),
                ("Id", lambda row: str(row["id"])),
            ),
            limit=limit,
            as_json=as_json,
            nothing="Nothing is limited. See `penstock limits set --help`.",
            expendable=("Id",),
        )


@app.command(
    "remove",
    epilog=examples(
        "penstock limits remove --key web-1 --metric requests",
        "penstock limits remove --project chat --all --yes",
    ),
)
def remove(  # noqa: PLR0913  # as set
    *,
    org: OrgOption = None,
    project: ProjectOption = None,
    key: KeyOption = None,
    member: MemberOption = None,
    account: AccountOption = None,
    metric: Annotated[
        Metric | None, typer.Option("--metric", help="Which rule.", show_default=False)
    ] = None,
    window: Annotated[str | None, _WINDOW] = None,
    alias: Annotated[str | None, _ALIAS] = None,
    model: Annotated[str | None, _MODEL] = None,
    per: PerOption = None,
    label: Annotated[str | None, LABEL] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="All its own rules, and its plan.")
    ] = False,
    yes: YesOption = False,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove a rule, or all that limits somebody; rules of those above still hold."""
    if everything == (metric is not None):
        raise CommandError(BAD_OPTION, "It is not said which.", "Give --metric, or --all.")
    with connect(data) as client:
        owner = find_owner(client, OwnerOptions(org, project, key, member, account))
        if metric is None:
            row = _find_limits(client, owner)
            if row is None:
                raise CommandError(NOT_FOUND, f"Nothing is set for {owner.words}.")
            confirm(f"Nothing of its own limits {owner.words} any more.", is_confirmed=yes)
            client.change("DELETE", f"{LIMITS}/{row['id']}")
            gone = {"id": row["id"], "is_deleted": True}
            say_done(gone, f"Removed the limits of {owner.words}.", as_json=as_json)
            return
        slot = build_slot(metric, window, alias=alias, model=model, per=per, label=label)

        def drop(rules: "list[Row]") -> "list[Row]":
            before, others = split_rules(rules, slot)
            if before is None:
                message = f"{owner.words.capitalize()} has no such rule of its own."
                raise CommandError(NOT_FOUND, message, "See `penstock limits list`.")
            return others

        row = _change_rules(client, owner, drop)
        say_done(row, f"Removed the rule of {owner.words}.", as_json=as_json)


def give_plan(client: "ControlClient", owner: Owner, plan_id: str | None) -> "Row":
    """Give somebody a plan, or take it away with None; return their limits.

    Raises:
        CommandError: Control refuses it.
    """
    return _change(client, owner, lambda _: {"plan_id": plan_id})


def _change_rules(
    client: "ControlClient", owner: Owner, change: "Callable[[list[Row]], list[Row]]"
) -> "Row":
    return _change(client, owner, lambda rules: {"rules": change(rules)})


def _change(
    client: "ControlClient", owner: Owner, change: "Callable[[list[Row]], dict[str, Any]]"
) -> "Row":
    """Change what limits somebody, as it is now, whatever others do at the same time."""
    for left in reversed(range(_TRIES)):
        row = _find_limits(client, owner)
        body = change([] if row is None else row["rules"])
        try:
            if row is None:
                return client.change("POST", LIMITS, {**owner.body, **body})
            path = f"{LIMITS}/{row['id']}"
            return client.change("PATCH", path, body, version=row["version"])
        except ControlRefusedError as error:
            if error.code not in _RACES or not left:
                raise
    raise AssertionError


def _find_limits(client: "ControlClient", owner: Owner) -> "Row | None":
    return next(client.rows(LIMITS, owner.filters), None)


def _parse_raise(raise_to: int | None, until: str | None) -> dict[str, Any]:
    if (raise_to is None) != (until is None):
        raise CommandError(BAD_OPTION, "--raise-to and --until go together.")
    if until is None:
        return {}
    moment = parse_deadline("--until", until, datetime.now(UTC))
    return {"raised_limit": raise_to, "raised_until": format_time(moment)}
