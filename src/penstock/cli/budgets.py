"""`penstock budgets`: how much money organizations, projects, keys and people may spend."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from penstock.cli.bodies import given
from penstock.cli.errors import BAD_OPTION, NOT_FOUND, CommandError
from penstock.cli.instance import DataOption, connect
from penstock.cli.limit_rules import scope_cell
from penstock.cli.limits import LABEL, PerOption
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
from penstock.cli.resolving import BUDGETS, NameBook, OrgOption, ProjectOption, find_place

if TYPE_CHECKING:
    from penstock.cli.control_client import ControlClient, Row

app = typer.Typer(
    name="budgets",
    help="Manage budgets: how much money may be spent in a day, a month, or once.",
    no_args_is_help=True,
)

PeriodOption = Annotated[
    Literal["day", "month", "once"],
    typer.Option("--period", help="The amount is for each day, each month, or once."),
]
CurrencyOption = Annotated[str, option("--currency", "Three capitals: EUR.", "CURRENCY")]
AliasOption = Annotated[
    str | None, option("--alias", "Only requests for this model name.", "ALIAS")
]


def _enforced(row: "Row") -> str:
    if not row["is_hard"]:
        return "soft"
    return "hard, refuses when away" if row["when_away"] == "refuse" else "hard"


_COLUMNS: tuple[Column, ...] = (
    ("Amount", lambda row: f"{'wallet' if row['is_wallet'] else row['amount']} {row['currency']}"),
    ("Period", lambda row: f"{row['period']} ({row['time_zone']})"),
    ("Of", scope_cell),
    ("Enforced", _enforced),
)


@app.command(
    "set",
    epilog=examples(
        "penstock budgets set --project chat --amount 250 --currency EUR --hard",
        "penstock budgets set --org acme --amount 9000 --currency EUR --time-zone Europe/Berlin",
        "penstock budgets set --key web-1 --amount 0.05 --currency EUR --period day --hard",
        "penstock budgets set --org acme --label team=search --amount 50 --currency EUR --hard",
    ),
)
def set_budget(  # noqa: PLR0913  # each option is a parameter: Typer reads them from here
    *,
    org: OrgOption = None,
    project: ProjectOption = None,
    key: KeyOption = None,
    member: MemberOption = None,
    account: AccountOption = None,
    amount: Annotated[
        str | None, option("--amount", "How much, a decimal; as it was without.", "AMOUNT")
    ] = None,
    currency: CurrencyOption,
    period: PeriodOption = "month",
    time_zone: Annotated[
        str | None,
        option("--time-zone", "Whose days and months, e.g. Europe/Berlin; UTC without.", "ZONE"),
    ] = None,
    per: PerOption = None,
    alias: AliasOption = None,
    label: Annotated[str | None, LABEL] = None,
    hard: Annotated[
        bool | None,
        typer.Option(
            "--hard/--soft",
            help="Let nothing in that could cost more than is left, or only count.",
            show_default="soft",
        ),
    ] = None,
    lower_cap: Annotated[
        bool | None,
        typer.Option(
            "--lower-cap/--refuse",
            help="Give a request fewer output tokens when not all can be paid, or refuse it.",
            show_default="--lower-cap",
        ),
    ] = None,
    exhausted_status: Annotated[
        int | None,
        option("--exhausted-status", "HTTP status when nothing is left: 429 or 402.", "STATUS"),
    ] = None,
    when_away: Annotated[
        Literal["spend_held", "refuse"] | None,
        typer.Option(
            "--when-away",
            help="Where a hard budget cannot be reached: spend what is held of it, or refuse.",
            show_default="spend_held",
        ),
    ] = None,
    alert: Annotated[
        list[int] | None, option("--alert", "A part to tell of, in percent; repeat it.", "PERCENT")
    ] = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Set a budget, or change the one of the same currency, period, alias, label and --per.

    What is not named stays as it was. Requests of a key count for all that it belongs to.
    """
    changes = given(
        amount=amount,
        is_hard=hard,
        lowers_cap=lower_cap,
        exhausted_status=exhausted_status,
        when_away=when_away,
        alert_percentages=alert,
    )
    slot = {"currency": currency, "period": period, "per": per, "alias": alias, "label": label}
    with connect(data) as client:
        owner = find_owner(client, OwnerOptions(org, project, key, member, account))
        row = _set(client, owner, slot, changes, time_zone)
        sentence = f"{owner.words.capitalize()} may spend {_words_of(row)}."
        say_done(row, sentence, as_json=as_json)
        if not as_json and row.get("unpriced_aliases"):
            _warn(row)


@app.command(
    "show",
    epilog=examples(
        "penstock budgets show --project chat", "penstock budgets show --key web-1 --json"
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
    """Show somebody's own budgets, and what is spent and held of each."""
    with connect(data) as client:
        owner = find_owner(client, OwnerOptions(org, project, key, member, account))
        ids = [row["id"] for row in client.rows(BUDGETS, owner.filters)]
        rows = [client.get(f"{BUDGETS}/{budget_id}") for budget_id in ids]
        if as_json:
            print_json({"data": rows})
            return
        if not rows:
            console().print(f"There is no budget of {owner.words}.", markup=False)
            return
        headings = [heading for heading, _ in _COLUMNS]
        headings += ["Whose", "Since (UTC)", "Spent", "Held", "Left"]
        cells = [
            [*(cell(row) for _, cell in _COLUMNS), *window]
            for row in rows
            for window in _window_cells(row)
        ]
        print_table(headings, cells, expendable=("Since (UTC)", "Whose"))


@app.command(
    "list", epilog=examples("penstock budgets list --org acme", "penstock budgets list --json")
)
def list_all(
    *,
    org: OrgOption = None,
    project: ProjectOption = None,
    limit: LimitOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """List budgets, oldest first. With --json: one object a line."""
    with connect(data) as client:
        names = NameBook(client)
        show_list(
            client.rows(BUDGETS, find_place(client, org, project).filters),
            (
                ("Whose", lambda row: name_owner(names, row)),
                *_COLUMNS,
                ("Id", lambda row: str(row["id"])),
            ),
            limit=limit,
            as_json=as_json,
            nothing="There is no budget. See `penstock budgets set --help`.",
            expendable=("Id",),
        )


@app.command(
    "remove",
    epilog=examples("penstock budgets remove --project chat --currency EUR --yes"),
)
def remove(  # noqa: PLR0913  # as set
    *,
    org: OrgOption = None,
    project: ProjectOption = None,
    key: KeyOption = None,
    member: MemberOption = None,
    account: AccountOption = None,
    currency: CurrencyOption,
    period: PeriodOption = "month",
    per: PerOption = None,
    alias: AliasOption = None,
    label: Annotated[str | None, LABEL] = None,
    yes: YesOption = False,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove a budget, with what was spent of it; usage events stay."""
    slot = {"currency": currency, "period": period, "per": per, "alias": alias, "label": label}
    with connect(data) as client:
        owner = find_owner(client, OwnerOptions(org, project, key, member, account))
        row = _find_budget(client, owner, slot)
        if row is None:
            message = f"There is no such budget of {owner.words}."
            raise CommandError(NOT_FOUND, message, "See `penstock budgets list`.")
        confirm(f"{owner.words.capitalize()} has no such budget any more.", is_confirmed=yes)
        client.change("DELETE", f"{BUDGETS}/{row['id']}")
        gone = {"id": row["id"], "is_deleted": True}
        say_done(gone, f"Removed the budget of {owner.words}.", as_json=as_json)


def _set(
    client: "ControlClient",
    owner: Owner,
    slot: dict[str, Any],
    changes: dict[str, Any],
    time_zone: str | None,
) -> "Row":
    before = _find_budget(client, owner, slot)
    if before is None:
        if "amount" not in changes:
            message = "There is no such budget yet, so it needs an amount."
            raise CommandError(BAD_OPTION, message, "Add --amount AMOUNT.")
        new = given(**slot, **changes, time_zone=time_zone)
        return client.change("POST", BUDGETS, {**owner.body, **new})
    if time_zone not in {None, before["time_zone"]}:
        message = f"Its days and months are those of {before['time_zone']}, and stay."
        raise CommandError(BAD_OPTION, message, "Remove it first, with what was spent.")
    path = f"{BUDGETS}/{before['id']}"
    return client.change("PATCH", path, changes, version=before["version"])


def _warn(row: "Row") -> None:
    names = ", ".join(row["unpriced_aliases"])
    effect = "refused" if row["is_hard"] else "not counted"
    sentence = f"Without a price in {row['currency']}, and so {effect}: {names}."
    console().print(sentence, style="yellow", markup=False)


def _find_budget(client: "ControlClient", owner: Owner, slot: dict[str, Any]) -> "Row | None":
    rows = client.rows(BUDGETS, owner.filters)
    return next((row for row in rows if row.items() >= slot.items()), None)


def _words_of(row: "Row") -> str:
    return ", ".join(cell(row) for _, cell in _COLUMNS)


def _window_cells(row: "Row") -> list[list[str]]:
    """Return what is spent and held, by subject, in the window that began last."""
    newest = max((one["starts_at"] for one in row["windows"]), default=None)
    windows = [one for one in row["windows"] if one["starts_at"] == newest]
    if not windows:
        return [[NONE, NONE, "0", "0", row["amount"]]]
    return [
        [
            one["subject"] or NONE,
            NONE if row["period"] == "once" else time_cell(one["starts_at"]),
            one["settled"],
            one["held"],
            one["left"],
        ]
        for one in windows
    ]
