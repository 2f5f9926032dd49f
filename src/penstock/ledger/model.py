"""Values of the ledger. Amounts are whole atto-units; times are microseconds since the epoch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

from penstock.limits.wallet_model import Cause, WalletMove

AccountKind: TypeAlias = Literal[
    "wallet_prepaid",
    "wallet_promo",
    "receivable",
    "accrued_usage",
    "revenue",
    "rounding",
    "breakage",
    "payment_clearing",
    "provider_cogs",
    "provider_payable",
    "writeoff",
    "tax_payable",
]
Mode: TypeAlias = Literal["prepaid", "postpaid"]
"""Whether an organization pays before it uses something, or after."""
Unpriced: TypeAlias = Literal["refuse", "allow"]
"""What happens to a request for what has no price in the currency of the terms."""
GrantKind: TypeAlias = Literal["promo", "paid"]
UsageKind: TypeAlias = Literal["charge", "cost"]
TransferKind: TypeAlias = Literal[
    "charge", "cost", "topup", "grant", "expiry", "invoice", "credit_note", "payment"
]

REST_ACCOUNTS: Final[Mapping[Mode, AccountKind]] = MappingProxyType(
    {"prepaid": "wallet_prepaid", "postpaid": "accrued_usage"}
)
"""What pays for usage that no grant pays for."""
GRANT_ACCOUNTS: Final[Mapping[GrantKind, AccountKind]] = MappingProxyType(
    {"promo": "wallet_promo", "paid": "wallet_prepaid"}
)
"""Where a grant lies until it is used."""


@dataclass(frozen=True, slots=True)
class UsagePosting:
    """What usage of one organization cost it, and us, in one currency: a batch's sums."""

    organization: str
    currency: str
    charge_atto: int
    """Negative for a correction, or when a price went down with the quantity."""
    cost_atto: int
    at_us: int
    """When it was used: in the statement of that month, and paid by grants that were valid then."""
    reverses: str | None = None
    """The transfer that a correction takes back a part of; without, the last ones are taken back
    first."""


@dataclass(frozen=True, slots=True)
class Posted:
    """What was booked of usage."""

    transfers: Mapping[tuple[str, str, str], str]
    """Ids by organization, currency and kind (`charge`, `cost`)."""
    moves: Sequence[WalletMove]
    """What it takes from wallets, or gives back; nothing when it was booked before."""


@dataclass(frozen=True, slots=True)
class Account:
    """Where amounts are added up: one of a kind, an organization and a currency."""

    id: str
    organization: str
    kind: AccountKind
    currency: str
    qualifier: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """A part of a transfer that is to be: a debit, or below zero a credit."""

    account: Account
    amount_atto: int
    grant_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A transfer that is to be booked. Its lines add up to nothing."""

    id: str
    organization: str
    kind: TransferKind
    idempotency_key: str
    currency: str
    booked_at_us: int
    lines: tuple[Line, ...]
    reverses_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """Credit of an organization: used before anything else, from its creation to its expiry."""

    id: str
    organization: str
    currency: str
    kind: GrantKind
    priority: int
    """Lower ones are used first."""
    expires_at_us: int | None
    amount_atto: int
    remaining_atto: int
    created_at_us: int
    name: str = ""

    def is_valid_at(self, at_us: int) -> bool:
        """Return whether it pays for what was used then."""
        has_ended = self.expires_at_us is not None and at_us >= self.expires_at_us
        return self.created_at_us <= at_us and not has_ended


@dataclass(frozen=True, slots=True)
class Lot:
    """What usage was paid from: a grant, or an account itself."""

    account_id: str
    grant_id: str | None = None


@dataclass(frozen=True, slots=True)
class Taken:
    """What a transfer took from a lot; below zero what it gave back."""

    lot: Lot
    amount_atto: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How an organization pays."""

    organization_id: str
    currency: str
    mode: Mode
    unpriced: Unpriced
    version: int
    """0 for the terms of those that have none of their own."""
    created_at_us: int
    updated_at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NewGrant:
    """Credit that is to be given."""

    organization_id: str
    currency: str | None
    """That of the organization's terms when None."""
    kind: GrantKind
    amount_atto: int
    priority: int
    expires_at_us: int | None
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TopUp:
    """Money that was put into a prepaid wallet."""

    id: str
    """Of its transfer."""
    organization_id: str
    currency: str
    amount_atto: int
    reference: str
    """Of the payment: booked once."""
    created_at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BillPosting:
    """What an invoice asks an organization for."""

    organization: str
    currency: str
    key: str
    """Id of the invoice: booked once."""
    accrued_atto: int
    """What was used and is billed now, exactly."""
    tax_atto: int
    rounding_atto: int
    """What the document says without tax, less `accrued_atto`."""

    @property
    def gross_atto(self) -> int:
        """What is to be paid."""
        return self.accrued_atto + self.rounding_atto + self.tax_atto


@dataclass(frozen=True, slots=True)
class Balance:
    """What an organization has and owes in one currency, of what was booked before a moment."""

    currency: str
    prepaid_atto: int
    """In the wallet, paid grants included. Below 0 when more was used than was there."""
    promo_atto: int
    """What is left of promotional grants."""
    accrued_atto: int
    """Used and not billed yet."""
    receivable_atto: int
    """Billed and not paid yet."""
    overdrafts: Mapping[Cause, int] = field(default_factory=dict)
    """What was taken from a wallet beyond what was free in it since it counts, by cause."""

    @property
    def total_atto(self) -> int:
        """What it has less what it owes."""
        return self.prepaid_atto + self.promo_atto - self.accrued_atto - self.receivable_atto


@dataclass(frozen=True, slots=True)
class ModelCharge:
    """What usage of a model was charged in a month."""

    model: str
    amount_atto: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What happened to the balance of an organization in a month, in one currency.

    Opening + top-ups + grants - expiries - charges + corrections + others = closing, exactly.
    """

    currency: str
    opening: Balance
    topups_atto: int
    grants_atto: int
    expiries_atto: int
    charges_atto: int
    corrections_atto: int
    """What was taken back of charges."""
    others_atto: int
    """Whatever else was booked: payments of invoices, less their tax and rounding."""
    closing: Balance
    models: tuple[ModelCharge, ...]
    elsewhere_atto: int
    """Charges less corrections, less those of models: what was used at one side of the month's
    border and booked at the other."""
    overdrafts: Mapping[Cause, int] = field(default_factory=dict)
    """What was taken beyond what was free, by cause; no line of the sum, for charges have it."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A row that the books should not have."""

    check: str
    subject: str
    """What it is about: an id, or several."""
