"""What the API of invoices takes and answers. Amounts are decimals in texts."""

from typing import Annotated, Any, Self

from pydantic import Field, StrictInt, StringConstraints

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
from penstock.billing.documents import BPS_PLACES, format_minor
from penstock.billing.errors import BILLING_INVALID
from penstock.billing.model import Invoice, Issuer, Party, Recipient, Vat, VatCategory
from penstock.kit.decimals import format_decimal, parse_decimal
from penstock.kit.errors import PenstockError
from penstock.ledger.months import month_of

_ORGANIZATION_ID = "org_4mJ0wq8ZtK1c"
_TIME = "2026-06-15T12:00:00.000000Z"
_PARTY: dict[str, Any] = {
    "name": "Acme GmbH",
    "address": ["Hauptstraße 1"],
    "postal_code": "10115",
    "city": "Berlin",
    "country": "DE",
    "vat_id": "DE123456789",
    "registration_id": "",
    "electronic_scheme": "EM",
    "electronic_address": "bills@acme.example",
}
_ISSUER: dict[str, Any] = {
    "party": _PARTY,
    "number_prefix": "INV-",
    "payment_days": 14,
    "payment_note": "",
}
_RECIPIENT: dict[str, Any] = {
    "party": _PARTY,
    "vat": {"category": "S", "rate": "19", "reason": ""},
    "leitweg_id": "",
}
_INVOICE: dict[str, Any] = {
    "id": "inv_7Gk3Wz9xMnRt",
    "organization_id": _ORGANIZATION_ID,
    "kind": "invoice",
    "state": "final",
    "currency": "EUR",
    "month": "2026-05",
    "number": "INV-17",
    "net": "12.50",
    "tax": "2.38",
    "gross": "14.88",
    "hash": "00" * 32,
    "preceding_id": None,
    "credit_note_id": None,
    "created_at": _TIME,
    "issued_at": _TIME,
    "paid_at": None,
    "version": 2,
}

Reference = Annotated[str, StringConstraints(pattern="^[0-9A-Za-z._:/-]{1,128}$")]


class PartyBody(RequestBody):
    """Who an invoice is from or to."""

    model_config = example(**_PARTY) | RequestBody.model_config

    name: Text
    address: Annotated[list[Text], Field(max_length=8, description="1 to 3 lines.")]
    postal_code: Text
    city: Text
    country: Annotated[Text, Field(description="Two capitals, ISO 3166.", examples=["DE"])]
    vat_id: Annotated[Text, Field(description="It begins with the country.")] = ""
    registration_id: Annotated[Text, Field(description="Of a register, or a tax number.")] = ""
    electronic_scheme: Annotated[
        Text, Field(description="What kind of address the next is: `EM` for e-mail, an EAS code.")
    ] = ""
    electronic_address: Text = ""

    def to_party(self) -> Party:
        """Return who it is."""
        return Party(**{**self.model_dump(), "address": tuple(self.address)})

    @classmethod
    def of(cls, party: Party) -> Self:
        """Return it as it is answered."""
        return cls(**{name: getattr(party, name) for name in cls.model_fields})


class VatBody(RequestBody):
    """How an organization is taxed."""

    category: Annotated[
        VatCategory,
        Field(
            description="`S` with a rate, `AE` reverse charge, `Z` zero rate, `E` exempt, `O` none."
        ),
    ]
    rate: Annotated[Text, Field(description="Percent, for `S`.", examples=["19"])] = "0"
    reason: Annotated[Text, Field(description="Why nothing is taxed: `AE`, `E` and `O`.")] = ""

    def to_vat(self) -> Vat:
        """Return how it is.

        Raises:
            PenstockError: `BILLING_INVALID` for what is no decimal.
        """
        rate_bps = parse_decimal(self.rate, BPS_PLACES)
        if rate_bps is None:
            raise PenstockError(BILLING_INVALID, "`vat.rate`: is none; use a decimal, e.g. 19.")
        return Vat(category=self.category, rate_bps=rate_bps, reason=self.reason)

    @classmethod
    def of(cls, vat: Vat) -> Self:
        """Return it as it is answered."""
        rate = format_decimal(vat.rate_bps, BPS_PLACES)
        return cls(category=vat.category, rate=rate, reason=vat.reason)


class NewIssuerBody(RequestBody):
    """Who is to send the invoices."""

    model_config = example(**_ISSUER) | RequestBody.model_config

    party: PartyBody
    number_prefix: Annotated[Text, Field(description="What numbers begin with.")] = "INV-"
    payment_days: Annotated[
        StrictInt, Field(description="From the issue to the day when it is due.")
    ] = 14
    payment_note: Annotated[Text, Field(description="How to pay, on one line.")] = ""

    def to_issuer(self) -> Issuer:
        """Return who it is to be."""
        return Issuer(
            party=self.party.to_party(),
            number_prefix=self.number_prefix,
            payment_days=self.payment_days,
            payment_note=self.payment_note,
        )


class IssuerBody(AnswerBody):
    """Who sends the invoices."""

    model_config = example(**_ISSUER, version=1, updated_at=_TIME)

    party: PartyBody
    number_prefix: str
    payment_days: int
    payment_note: str
    version: int
    updated_at: Time

    @classmethod
    def of(cls, item: Issuer, **members: Any) -> Self:
        """Return an issuer as it is answered."""
        return super().of(item, party=PartyBody.of(item.party), **members)


class NewRecipientBody(RequestBody):
    """Who is to get the invoices of an organization."""

    model_config = example(**_RECIPIENT) | RequestBody.model_config

    party: PartyBody
    vat: VatBody
    leitweg_id: Annotated[Text, Field(description="Of a public body in Germany.")] = ""

    def to_recipient(self, organization_id: str) -> Recipient:
        """Return who it is to be."""
        return Recipient(
            organization_id=organization_id,
            party=self.party.to_party(),
            vat=self.vat.to_vat(),
            leitweg_id=self.leitweg_id,
        )


class RecipientBody(AnswerBody):
    """Who gets the invoices of an organization."""

    model_config = example(
        organization_id=_ORGANIZATION_ID, **_RECIPIENT, version=1, updated_at=_TIME
    )

    organization_id: str
    party: PartyBody
    vat: VatBody
    leitweg_id: str
    version: int
    updated_at: Time

    @classmethod
    def of(cls, item: Recipient, **members: Any) -> Self:
        """Return a recipient as it is answered."""
        party, vat = PartyBody.of(item.party), VatBody.of(item.vat)
        return super().of(item, party=party, vat=vat, **members)


class NewInvoiceBody(RequestBody):
    """An invoice that is to be drafted."""

    model_config = example(organization_id=_ORGANIZATION_ID, month="2025-05", currency="EUR")

    organization_id: Id
    month: Annotated[Text, Field(description="YYYY-MM, in UTC; one that is over.")]
    currency: Annotated[
        Text | None, Field(description="That of the organization's billing terms without.")
    ] = None


class PaymentBody(RequestBody):
    """That an invoice was paid."""

    model_config = example(reference="payment-4711") | RequestBody.model_config

    reference: Annotated[Reference, Field(description="Of the payment.")]


class InvoiceBody(AnswerBody):
    """An invoice, a credit note, or a draft."""

    model_config = example(**_INVOICE)

    id: str
    organization_id: str
    kind: str
    state: Annotated[str, Field(description="`draft`, `final`, `paid` or `void`.")]
    currency: str
    month: str
    number: Annotated[str | None, Field(description="Null for a draft, as all that was issued.")]
    net: str | None
    tax: str | None
    gross: Annotated[str | None, Field(description="What is to be paid.")]
    hash: Annotated[str | None, Field(description="SHA-256 of `content` as canonical JSON.")]
    preceding_id: Annotated[str | None, Field(description="What a credit note takes back.")]
    credit_note_id: Annotated[str | None, Field(description="What took it back.")]
    created_at: Time
    issued_at: Time | None
    paid_at: Time | None
    version: int

    @classmethod
    def of(cls, item: Invoice, **members: Any) -> Self:
        """Return an invoice as it is answered."""
        amounts = {name: _paper(getattr(item, name), item) for name in ("net", "tax", "gross")}
        month = month_of(item.since_us)
        return super().of(item, month=month, number=item.label, **amounts, **members)


class InvoiceContentBody(InvoiceBody):
    """An invoice and all that it says."""

    model_config = example(**_INVOICE, content={"number": "INV-17", "gross": "14.88"})

    content: Annotated[
        dict[str, Any] | None,
        Field(
            description="Lines, amounts and parties, as they were issued; of a draft what it would "
            "say now. Null while it is not known how the organization is taxed."
        ),
    ]


class InvoicePage(PageBody[InvoiceBody]):
    """A page of invoices, credit notes and drafts, oldest first."""


class InvoicesQuery(PageQuery):
    """Which invoices are meant."""

    organization_id: Annotated[
        Id | None, Field(description="Only of this one; all that the caller may see without.")
    ] = None


def _paper(amount: int | None, invoice: Invoice) -> str | None:
    return None if amount is None else format_minor(amount, invoice.currency)
