"""Values of billing. Exact amounts are whole atto-units, those on paper whole minor units.

A minor unit is the smallest that a currency is paid in: a cent. Times are microseconds.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

VatCategory: TypeAlias = Literal["S", "Z", "E", "AE", "O"]
"""Codes of UNTDID 5305: standard rate, zero rate, exempt, reverse charge, outside of the scope."""
Kind: TypeAlias = Literal["invoice", "credit_note"]
State: TypeAlias = Literal["draft", "final", "paid", "void"]
ISSUER: Final = ""
"""Stands where particulars have their organization: those of the platform, which has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Party:
    """Who an invoice is from or to."""

    name: str
    address: tuple[str, ...]
    """Lines of it, without what follows."""
    postal_code: str
    city: str
    country: str
    """Two capitals, ISO 3166."""
    vat_id: str = ""
    registration_id: str = ""
    """In a register of companies, or a tax number."""
    electronic_scheme: str = ""
    """What kind of address the next is: a code of the EAS list, `EM` for e-mail."""
    electronic_address: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vat:
    """How an organization is taxed."""

    category: VatCategory
    rate_bps: int
    """Hundredths of a percent; above 0 for `S`, else 0."""
    reason: str = ""
    """Why nothing is taxed, for `E`, `AE` and `O`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """Who sends the invoices."""

    party: Party
    number_prefix: str
    """What numbers begin with: `INV-` of `INV-17`."""
    payment_days: int
    """From the issue to the day when it is due."""
    payment_note: str = ""
    """How to pay: an account, for one."""
    version: int = 0
    updated_at_us: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipient:
    """Who gets the invoices of an organization."""

    organization_id: str
    party: Party
    vat: Vat
    leitweg_id: str = ""
    """Where a public body in Germany wants its invoices."""
    version: int = 0
    updated_at_us: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What was used of a model by a project in a month, and what it was charged."""

    project: str
    model: str
    month: str
    """YYYY-MM, of the use."""
    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    images: int = 0
    audio_seconds: int = 0
    characters: int = 0
    amount_atto: int = 0
    """Below 0 for what was taken back since the last invoice."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of an invoice."""

    usage: Usage
    net: int
    """Rounded, in minor units."""


@dataclass(frozen=True, slots=True)
class Paid:
    """What charges were booked on, in atto-units: who paid for what was used."""

    promo_atto: int = 0
    prepaid_atto: int = 0
    accrued_atto: int = 0
    """What nobody has paid yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """All amounts of an invoice. Lines - credit = net, net + tax = gross, exactly."""

    currency: str
    lines: tuple[Line, ...]
    paid: Paid
    credit: int
    """What is taken off the lines, because credit paid for it."""
    net: int
    vat: Vat
    tax: int
    rounding_atto: int
    """Net less what was charged and not paid."""

    @property
    def gross(self) -> int:
        """What is to be paid."""
        return self.net + self.tax


@dataclass(frozen=True, slots=True, kw_only=True)
class Invoice:
    """An invoice or a credit note, or the draft of an invoice."""

    id: str
    organization_id: str
    kind: Kind
    currency: str
    since_us: int
    until_us: int
    """The end of its month, excluded."""
    created_at_us: int
    state: State = "draft"
    number: int | None = None
    """Its place among all that was issued, from 1; None for a draft, as all that follows."""
    label: str | None = None
    """The number as it is written."""
    issued_at_us: int | None = None
    net: int | None = None
    tax: int | None = None
    gross: int | None = None
    transfer_id: str | None = None
    preceding_id: str | None = None
    """The invoice that a credit note takes back."""
    content: str | None = None
    """What it says, as canonical JSON: the snapshot."""
    hash: str | None = None
    """SHA-256 of `content`, in hex."""
    paid_at_us: int | None = None
    credit_note_id: str | None = None
    """What took it back."""

    @property
    def version(self) -> int:
        """1 for a draft, 2 when it was issued, 3 when it was paid or taken back."""
        is_over = self.paid_at_us is not None or self.credit_note_id is not None
        return 1 + (self.number is not None) + is_over


Content: TypeAlias = Mapping[str, Any]
"""What an invoice says, as JSON has it: texts, and whole numbers for quantities."""
