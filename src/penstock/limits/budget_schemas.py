"""What the API of budgets and holds takes and answers. Amounts are decimals in texts.

On bodies of changes see `catalog.upstream_schemas`.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, StrictBool, StrictInt

from penstock.audit.schemas import (
    AnswerBody,
    Id,
    PageBody,
    PageQuery,
    RequestBody,
    Text,
    Time,
    example,
)
from penstock.contract.money import WhenAway
from penstock.kit.decimals import format_decimal, parse_decimal
from penstock.kit.errors import PenstockError
from penstock.kit.moments import format_time
from penstock.limits.budget_model import (
    Budget,
    BudgetChanges,
    BudgetHold,
    BudgetUse,
    NewBudget,
)
from penstock.limits.budget_windows import Period
from penstock.limits.errors import BUDGET_INVALID
from penstock.limits.model import Owner
from penstock.limits.rule_schemas import LabelName, OwnerIds, OwnerKindName

PLACES = 9
"""Decimals of nano-units."""
EXACT_PLACES = 18

_TIMES = {"created_at": "2026-06-15T12:00:00.000000Z", "updated_at": "2026-06-15T12:00:00.000000Z"}
_BUDGET_ID = "bud_8Rv2Kd5nTpLw"
_ORGANIZATION_ID = "org_4mJ0wq8ZtK1c"
_PROJECT_ID = "prj_9d21E8c0f1aX"
_KEY_ID = "4mJ0wq8ZtK1c"
_OWNER: dict[str, Any] = {
    "organization_id": _ORGANIZATION_ID,
    "project_id": _PROJECT_ID,
    "owner_kind": "key",
    "key_id": _KEY_ID,
    "member_id": None,
    "service_account_id": None,
}
_MONEY: dict[str, Any] = {"currency": "EUR", "amount": "250", "period": "month"}
_REST: dict[str, Any] = {
    "time_zone": "Europe/Berlin",
    "is_hard": True,
    "is_wallet": False,
    "per": None,
    "alias": None,
    "label": None,
    "alert_percentages": [80, 100],
    "lowers_cap": True,
    "exhausted_status": 429,
    "when_away": "spend_held",
}
_WINDOW: dict[str, Any] = {
    "subject": None,
    "starts_at": "2026-05-31T22:00:00.000000Z",
    "ends_at": "2026-06-30T22:00:00.000000Z",
    "settled": "17.000000000000000003",
    "held": "0.5",
    "left": "232.499999999999999997",
    "overrun": "0",
    "balance": None,
}

Amount = Annotated[
    Text,
    Field(
        description="More than 0, at most 9000000000 and 9 decimals, no exponent.",
        examples=["250"],
    ),
]
Currency = Annotated[Text, Field(description="Three capitals, ISO 4217.", examples=["EUR"])]
IsHard = Annotated[
    StrictBool,
    Field(description="Nothing is let in that could cost more than is left; else it is counted."),
]
Percentages = Annotated[
    list[StrictInt],
    Field(description="At most 10 parts of the amount to tell somebody of, in percent."),
]
LowersCap = Annotated[
    StrictBool,
    Field(description="A request for more output than is left is given fewer tokens, not refused."),
]
ExhaustedStatus = Annotated[
    StrictInt, Field(description="HTTP status when nothing is left: 429 or 402.")
]
WhenAwayName = Annotated[
    WhenAway,
    Field(
        description="What workers do with a hard budget that they cannot reach: spend what they "
        "hold of it, or refuse requests."
    ),
]
ExactAmount = Annotated[str, Field(description="A decimal.")]


def read_amount(text: str) -> int:
    """Return an amount in nano-units.

    Raises:
        PenstockError: `BUDGET_INVALID`.
    """
    amount = parse_decimal(text, PLACES)
    if amount is None:
        message = "`amount`: is no decimal; write it like 250 or 0.05, with at most 9 decimals."
        raise PenstockError(BUDGET_INVALID, message)
    return amount


class NewBudgetBody(OwnerIds):
    """A budget that is to be: name exactly one of organization, project, key and so on."""

    model_config = example(key_id=_KEY_ID, **_MONEY, is_hard=True)

    currency: Currency
    amount: Amount
    period: Annotated[
        Period, Field(description="The amount is for each day, each month, or once.")
    ] = "month"
    time_zone: Annotated[
        Text, Field(description="Whose days and months: an IANA name.", examples=["Europe/Berlin"])
    ] = "UTC"
    is_hard: IsHard = False
    per: Annotated[
        Literal["key", "member"] | None,
        Field(description="The amount is for each key or member; all share it without."),
    ] = None
    alias: Annotated[Text | None, Field(description="Only requests for this alias.")] = None
    label: LabelName = None
    alert_percentages: Percentages = Field(default_factory=list)
    lowers_cap: LowersCap = True
    exhausted_status: ExhaustedStatus = 429
    when_away: WhenAwayName = "spend_held"

    def to_new(self, owner: Owner) -> NewBudget:
        """Return what is to be.

        Raises:
            PenstockError: `BUDGET_INVALID` for the amount.
        """
        members = self.model_dump(exclude={*OwnerIds.model_fields, "amount", "per"})
        amount = read_amount(self.amount)
        return NewBudget(owner=owner, amount=amount, per=self.per or "", **members)


class BudgetChangesBody(RequestBody):
    """What of a budget is to change; what is left out stays."""

    model_config = example(amount="300", is_hard=False)

    amount: Amount = Field(default_factory=str)
    is_hard: IsHard = Field(default_factory=bool)
    alert_percentages: Percentages = Field(default_factory=list)
    lowers_cap: LowersCap = Field(default_factory=bool)
    exhausted_status: ExhaustedStatus = Field(default_factory=int)
    when_away: WhenAwayName = Field(default="spend_held")

    def to_changes(self) -> BudgetChanges:
        """Return the members that were sent.

        Raises:
            PenstockError: `BUDGET_INVALID` for the amount.
        """
        changes: BudgetChanges = {**self.model_dump(exclude_unset=True, exclude={"amount"})}  # type: ignore[typeddict-item]  # its names are ours
        if "amount" in self.model_fields_set:
            changes["amount"] = read_amount(self.amount)
        return changes


class BudgetsQuery(PageQuery, OwnerIds):
    """Which budgets are meant."""

    owner_kind: Annotated[
        OwnerKindName | None, Field(description="Service accounts count as members.")
    ] = None
    currency: Text | None = None
    period: Period | None = None
    alias: Text | None = None
    label: Text | None = None


class BudgetBody(AnswerBody):
    """What an owner may spend."""

    model_config = example(id=_BUDGET_ID, **_OWNER, **_MONEY, **_REST, version=1, **_TIMES)

    id: str
    organization_id: str
    project_id: Annotated[str | None, Field(description="The owner, or where it is.")]
    owner_kind: str
    key_id: str | None
    member_id: str | None
    service_account_id: str | None
    currency: str
    amount: ExactAmount
    period: str
    time_zone: str
    is_hard: bool
    is_wallet: Annotated[
        bool,
        Field(
            description="It is what the organization paid ahead: its `amount` is 0, and what is in "
            "it is the `balance` of its window. It cannot be changed."
        ),
    ]
    per: str | None
    alias: str | None
    label: str | None
    alert_percentages: list[int]
    lowers_cap: bool
    exhausted_status: int
    when_away: str
    version: int
    created_at: Time
    updated_at: Time

    @classmethod
    def of(cls, item: Budget, **members: Any) -> Self:
        """Return a budget as it is answered."""
        amount = _shown(item.amount)
        return super().of(item, amount=amount, per=item.per or None, **members)


class BudgetPage(PageBody[BudgetBody]):
    """A page of budgets, oldest first."""


class BudgetWindowBody(AnswerBody):
    """What is spent and held in a day or month, or in all time."""

    model_config = example(**_WINDOW)

    subject: Annotated[
        str | None,
        Field(description="`k.` and a key's id or `m.` and a member's, of a budget `per` them."),
    ]
    starts_at: Time
    ends_at: Time | None
    settled: Annotated[str, Field(description="What usage was charged, exactly.")]
    held: Annotated[str, Field(description="What workers may spend besides.")]
    left: Annotated[str, Field(description="What is neither; below 0 when it is overrun.")]
    overrun: Annotated[str, Field(description="What usage that came late was charged beyond.")]
    balance: Annotated[str | None, Field(description="Of a wallet: what the ledger says is in it.")]

    @classmethod
    def of(cls, item: BudgetUse, **members: Any) -> Self:
        """Return a window as it is answered."""
        window = item.window
        ends_at_us = window.ends_at_us
        return super().of(
            item,
            subject=window.key.subject or None,
            starts_at=format_time(window.key.starts_at_us),
            ends_at=None if ends_at_us is None else format_time(ends_at_us),
            settled=format_decimal(window.settled_atto, EXACT_PLACES),
            held=format_decimal(window.held, PLACES),
            left=format_decimal(item.left_atto, EXACT_PLACES),
            overrun=format_decimal(max(0, -item.left_atto), EXACT_PLACES),
            balance=format_decimal(window.balance_atto, EXACT_PLACES) if item.is_wallet else None,
            **members,
        )


class BudgetStateBody(BudgetBody):
    """What an owner may spend, and has spent."""

    model_config = example(
        id=_BUDGET_ID,
        **_OWNER,
        **_MONEY,
        **_REST,
        windows=[_WINDOW],
        unpriced_aliases=["llama-70b"],
        version=1,
        **_TIMES,
    )

    windows: Annotated[
        list[BudgetWindowBody], Field(description="Those that began last, at most 100.")
    ]
    unpriced_aliases: Annotated[
        list[str],
        Field(
            description="Aliases that have no price in its currency: usage of them is not counted, "
            "and refused when it is hard."
        ),
    ]


class HoldsQuery(PageQuery):
    """Which holds are meant."""

    organization_id: Id | None = None
    project_id: Id | None = None
    budget_id: Id | None = None


class HoldBody(AnswerBody):
    """What a worker may spend of a budget without asking."""

    model_config = example(
        id="hld_2Wq9Zs4mXcVb",
        organization_id=_ORGANIZATION_ID,
        budget_id=_BUDGET_ID,
        subject=None,
        starts_at=_WINDOW["starts_at"],
        producer="node-1/0",
        epoch=3,
        currency="EUR",
        label=None,
        amount="1",
        used="0.25",
        freed="0.25",
        held="0.5",
        created_at=_TIMES["created_at"],
    )

    id: str
    organization_id: str
    budget_id: str
    subject: str | None
    starts_at: Annotated[str, Field(description="Of the budget's window.")]
    producer: Annotated[str, Field(description="The node's id and the worker's slot.")]
    epoch: Annotated[int, Field(description="Number of this start of the worker.")]
    currency: str
    label: Annotated[str | None, Field(description="Of a budget for keys with one.")]
    amount: str
    used: Annotated[str, Field(description="Of requests whose usage is stored.")]
    freed: Annotated[str, Field(description="What was given back.")]
    held: Annotated[str, Field(description="What is left.")]
    created_at: Time

    @classmethod
    def of(cls, item: BudgetHold, budget: Budget | None = None, **members: Any) -> Self:
        """Return a hold as it is answered; of a budget that is gone less is known."""
        return super().of(
            item,
            currency="" if budget is None else budget.currency,
            label=None if budget is None else budget.label,
            budget_id=item.window.budget_id,
            subject=item.window.subject or None,
            starts_at=format_time(item.window.starts_at_us),
            amount=format_decimal(item.amount, PLACES),
            used=format_decimal(item.used, PLACES),
            freed=format_decimal(item.freed, PLACES),
            held=format_decimal(item.outstanding, PLACES),
            **members,
        )


class HoldPage(PageBody[HoldBody]):
    """A page of open holds, oldest first."""


def _shown(amount: object) -> str:
    """Return an amount as it is answered; what somebody else wrote into the row as nothing."""
    return format_decimal(amount, PLACES) if isinstance(amount, int) else ""
