"""What the API of the books takes and answers. Amounts are decimals in texts."""

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import AwareDatetime, BaseModel, Field, StrictInt, StringConstraints

from penstock.audit.schemas import (
    AnswerBody,
    Id,
    PageBody,
    PageQuery,
    Reason,
    RequestBody,
    Text,
    Time,
    example,
)
from penstock.kit.decimals import parse_decimal
from penstock.kit.errors import PenstockError
from penstock.kit.moments import format_time, microseconds
from penstock.ledger.credit_rules import MAX_PRIORITY
from penstock.ledger.errors import LEDGER_INVALID
from penstock.ledger.model import (
    Balance,
    Grant,
    GrantKind,
    Mode,
    NewGrant,
    Statement,
    TopUp,
    Unpriced,
)
from penstock.ledger.money import PLACES, show, show_exact
from penstock.limits.wallet_model import Cause

_ORGANIZATION_ID = "org_4mJ0wq8ZtK1c"
_TIME = "2026-06-15T12:00:00.000000Z"
_GRANT: dict[str, Any] = {
    "organization_id": _ORGANIZATION_ID,
    "currency": "EUR",
    "kind": "promo",
    "amount": "25",
    "priority": 10,
    "expires_at": "2030-01-01T00:00:00.000000Z",
    "name": "welcome",
}
_TOP_UP: dict[str, Any] = {
    "organization_id": _ORGANIZATION_ID,
    "currency": "EUR",
    "amount": "100",
    "reference": "payment-4711",
}
_BALANCE: dict[str, Any] = {
    "currency": "EUR",
    "total": "112.499999999999999997",
    "prepaid": "100",
    "promo": "12.499999999999999997",
    "accrued": "0",
    "receivable": "0",
    "is_overdrawn": False,
    "overdrafts": [],
}
_OVERDRAFT = {"cause": "overrun", "amount": "0.25"}
_LINE: dict[str, Any] = {"amount": "12.505", "shown": "12.51", "rounding": "0.005"}

_LINES: dict[str, Any] = dict.fromkeys(
    (
        "opening",
        "top_ups",
        "grants",
        "expiries",
        "charges",
        "corrections",
        "others",
        "closing",
        "elsewhere",
    ),
    _LINE,
)
_TERMS: dict[str, Any] = {"currency": "EUR", "mode": "prepaid", "unpriced": "refuse"}

Amount = Annotated[
    Text, Field(description="More than 0, at most 18 decimals, no exponent.", examples=["25"])
]
Currency = Annotated[Text, Field(description="Three capitals, ISO 4217.", examples=["EUR"])]
OwnCurrency = Annotated[
    Currency | None, Field(description="That of the organization's billing terms without.")
]
Reference = Annotated[str, StringConstraints(pattern="^[0-9A-Za-z._:/-]{1,128}$")]
Whose = Annotated[
    Id | None, Field(description="Whose books; the caller's own organization's without.")
]


class NewTermsBody(RequestBody):
    """How an organization is to pay."""

    model_config = example(**_TERMS)

    currency: Currency
    mode: Annotated[Mode, Field(description="Whether it pays before it uses something, or after.")]
    unpriced: Annotated[
        Unpriced | None,
        Field(
            description="Whether requests for a model that has no price in the currency are "
            "refused. As it is without; `refuse` at first."
        ),
    ] = None


class TermsBody(AnswerBody):
    """How an organization pays."""

    model_config = example(
        organization_id=_ORGANIZATION_ID,
        **_TERMS,
        version=1,
        updated_at=_TIME,
    )

    organization_id: str
    currency: str
    mode: str
    unpriced: str
    version: Annotated[int, Field(description="0 when nobody has set any.")]
    updated_at: Time


class NewGrantBody(RequestBody):
    """Credit that is to be given."""

    model_config = example(**_GRANT)

    organization_id: Id
    amount: Amount
    currency: OwnCurrency = None
    kind: Annotated[GrantKind, Field(description="`promo` is a present, `paid` was paid for.")] = (
        "promo"
    )
    priority: Annotated[
        StrictInt,
        Field(ge=-MAX_PRIORITY, le=MAX_PRIORITY, description="Lower ones are used first."),
    ] = 0
    expires_at: Annotated[
        AwareDatetime | None, Field(description="ISO 8601 with a time zone; never without.")
    ] = None
    name: Annotated[Reason, Field(description="What it is called, e.g. why it is given.")] = ""

    def to_new(self) -> NewGrant:
        """Return what is to be.

        Raises:
            PenstockError: `LEDGER_INVALID` for what is no decimal.
        """
        return NewGrant(
            organization_id=self.organization_id,
            currency=self.currency,
            kind=self.kind,
            amount_atto=read_amount(self.amount),
            priority=self.priority,
            expires_at_us=microseconds(self.expires_at),
            name=self.name,
        )


class GrantBody(AnswerBody):
    """Credit of an organization, and what is left of it."""

    model_config = example(id="crd_7Gk3Wz9xMnRt", remaining="12.5", created_at=_TIME, **_GRANT)

    id: str
    organization_id: str
    currency: str
    kind: str
    amount: str
    remaining: str
    priority: int
    expires_at: Time | None
    name: str
    created_at: Time

    @classmethod
    def of(cls, item: Grant, **members: Any) -> Self:
        """Return a grant as it is answered."""
        return super().of(
            item,
            organization_id=item.organization,
            amount=show_exact(item.amount_atto),
            remaining=show_exact(item.remaining_atto),
            **members,
        )


class GrantPage(PageBody[GrantBody]):
    """A page of credit grants, oldest first."""


class GrantsQuery(PageQuery):
    """Which grants are meant."""

    organization_id: Whose = None


class NewTopUpBody(RequestBody):
    """Money that is put into a prepaid wallet."""

    model_config = example(**_TOP_UP)

    organization_id: Id
    amount: Amount
    currency: OwnCurrency = None
    reference: Annotated[
        Reference | None,
        Field(description="Of the payment: booked once, for ever. A new one without."),
    ] = None


class TopUpBody(AnswerBody):
    """Money that was put into a prepaid wallet."""

    model_config = example(id="trf_3f8a0c5e9b7d42160a1b2c3d", created_at=_TIME, **_TOP_UP)

    id: str
    organization_id: str
    currency: str
    amount: str
    reference: str
    created_at: Time

    @classmethod
    def of(cls, item: TopUp, **members: Any) -> Self:
        """Return a top-up as it is answered."""
        return super().of(item, amount=show_exact(item.amount_atto), **members)


class BalancesQuery(RequestBody):
    """Whose balances, and when."""

    organization_id: Whose = None
    as_of: Annotated[
        AwareDatetime | None,
        Field(description="ISO 8601: what was booked before this time; now without."),
    ] = None


class OverdraftBody(BaseModel):
    """What was taken from a wallet beyond what was free in it."""

    model_config = example(**_OVERDRAFT)

    cause: Annotated[
        str,
        Field(
            description="`overrun`: usage cost more than was held for it; `hold_expired`: it came "
            "when its hold had ended; `unheld`: its node did not know of the wallet; `correction`: "
            "of usage or its price; `grant_expired`: while requests held it; `terms`: missing when "
            "the organization became prepaid."
        ),
    ]
    amount: Annotated[str, Field(description="Exact.")]

    @classmethod
    def build(cls, overdrafts: Mapping[Cause, int]) -> list[Self]:
        """Return overdrafts as they are answered."""
        return [cls(cause=cause, amount=show_exact(atto)) for cause, atto in overdrafts.items()]


class BalanceBody(BaseModel):
    """What an organization has and owes in one currency, exactly."""

    model_config = example(**_BALANCE)

    currency: str
    total: Annotated[str, Field(description="prepaid + promo - accrued - receivable.")]
    prepaid: Annotated[str, Field(description="In the wallet, with paid grants; may be below 0.")]
    promo: Annotated[str, Field(description="Left of promotional grants.")]
    accrued: Annotated[str, Field(description="Used and not billed yet.")]
    receivable: Annotated[str, Field(description="Billed and not paid yet.")]
    is_overdrawn: Annotated[
        bool, Field(description="More was used than the wallet had: the rest is owed.")
    ]
    overdrafts: Annotated[
        list[OverdraftBody], Field(description="Why it may be: all that there ever was.")
    ]

    @classmethod
    def of(cls, balance: Balance) -> Self:
        """Return a balance as it is answered."""
        return cls(
            currency=balance.currency,
            total=show_exact(balance.total_atto),
            prepaid=show_exact(balance.prepaid_atto),
            promo=show_exact(balance.promo_atto),
            accrued=show_exact(balance.accrued_atto),
            receivable=show_exact(balance.receivable_atto),
            is_overdrawn=balance.prepaid_atto < 0,
            overdrafts=OverdraftBody.build(balance.overdrafts),
        )


class BalancesBody(BaseModel):
    """Balances of an organization, one a currency."""

    model_config = example(organization_id=_ORGANIZATION_ID, as_of=_TIME, data=[_BALANCE])

    organization_id: str
    as_of: Time
    data: list[BalanceBody]

    @classmethod
    def build(cls, organization_id: str, as_of_us: int, balances: list[Balance]) -> Self:
        """Return balances as they are answered."""
        data = [BalanceBody.of(balance) for balance in balances]
        return cls(organization_id=organization_id, as_of=format_time(as_of_us), data=data)


class StatementsQuery(RequestBody):
    """Whose statements, and of which month."""

    organization_id: Whose = None
    month: Annotated[
        Text | None, Field(description="YYYY-MM, in UTC; the current one without.")
    ] = None


class LineBody(BaseModel):
    """An amount of a statement: exact, and as it is shown in money of the currency."""

    model_config = example(**_LINE)

    amount: Annotated[str, Field(description="Exact.")]
    shown: Annotated[str, Field(description="Rounded to the currency; halves away from zero.")]
    rounding: Annotated[str, Field(description="shown - amount.")]

    @classmethod
    def of(cls, atto: int, currency: str) -> Self:
        """Return an amount as it is answered."""
        shown = show(atto, currency)
        return cls(amount=shown.amount, shown=shown.shown, rounding=shown.rounding)


class ModelLineBody(LineBody):
    """What usage of a model was charged."""

    model_config = example(model="llama-70b", **_LINE)

    model: str


class StatementBody(BaseModel):
    """What happened to a balance in a month. No line is rounded before it is added up.

    opening + top_ups + grants - expiries - charges + corrections + others = closing.
    """

    model_config = example(
        currency="EUR",
        models=[{"model": "llama-70b", **_LINE}],
        overdrafts=[_OVERDRAFT],
        **_LINES,
    )

    currency: str
    opening: LineBody
    top_ups: LineBody
    grants: LineBody
    expiries: LineBody
    charges: LineBody
    corrections: Annotated[LineBody, Field(description="Taken back of charges.")]
    others: Annotated[
        LineBody,
        Field(
            description="Whatever else was booked: payments of invoices, less what these ask for "
            "besides charges: tax and rounding."
        ),
    ]
    closing: LineBody
    models: Annotated[
        list[ModelLineBody], Field(description="Charges less corrections, by the time of use.")
    ]
    elsewhere: Annotated[
        LineBody,
        Field(
            description="Charges less corrections, less those of `models`: used at one side of the "
            "month's border and booked at the other."
        ),
    ]
    overdrafts: Annotated[
        list[OverdraftBody],
        Field(description="Of the charges and expiries: what was recorded in the month."),
    ]

    @classmethod
    def of(cls, statement: Statement) -> Self:
        """Return a statement as it is answered."""

        def line(atto: int) -> LineBody:
            return LineBody.of(atto, statement.currency)

        return cls(
            currency=statement.currency,
            opening=line(statement.opening.total_atto),
            top_ups=line(statement.topups_atto),
            grants=line(statement.grants_atto),
            expiries=line(statement.expiries_atto),
            charges=line(statement.charges_atto),
            corrections=line(statement.corrections_atto),
            others=line(statement.others_atto),
            closing=line(statement.closing.total_atto),
            models=[
                ModelLineBody(model=one.model, **line(one.amount_atto).model_dump())
                for one in statement.models
            ],
            elsewhere=line(statement.elsewhere_atto),
            overdrafts=OverdraftBody.build(statement.overdrafts),
        )


class StatementsBody(BaseModel):
    """Statements of an organization for a month, one a currency."""

    model_config = example(
        organization_id=_ORGANIZATION_ID,
        month="2026-06",
        since="2026-06-01T00:00:00.000000Z",
        until="2026-07-01T00:00:00.000000Z",
        data=[],
    )

    organization_id: str
    month: str
    since: Time
    until: Annotated[Time, Field(description="The first moment that is not in it.")]
    data: list[StatementBody]

    @classmethod
    def build(
        cls, organization_id: str, month: str, period: tuple[int, int], found: list[Statement]
    ) -> Self:
        """Return statements as they are answered."""
        since, until = map(format_time, period)
        data = [StatementBody.of(one) for one in found]
        return cls(
            organization_id=organization_id, month=month, since=since, until=until, data=data
        )


class ViolationBody(BaseModel):
    """A row that the books should not have."""

    check: Annotated[str, Field(description="Which of the checks found it.")]
    subject: Annotated[str, Field(description="Id of what it is about.")]


class BooksBody(BaseModel):
    """Whether the books are right."""

    model_config = example(is_right=True, checks=["transfer_sum"], violations=[])

    is_right: bool
    checks: list[str]
    violations: Annotated[
        list[ViolationBody], Field(description="At most 100 of each check: none when all is right.")
    ]


def read_amount(text: str) -> int:
    """Return an amount of a body.

    Raises:
        PenstockError: `LEDGER_INVALID` for what is no decimal.
    """
    amount = parse_decimal(text, PLACES)
    if amount is None:
        message = f"`amount`: is no decimal; write it like 0.15, with at most {PLACES} decimals."
        raise PenstockError(LEDGER_INVALID, message)
    return amount
