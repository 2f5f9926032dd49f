"""Usage that is charged, and invoices over it, without a control plane."""

from fractions import Fraction
from itertools import count
from typing import Any

from tests.fakes.ledger_rig import find_violations
from tests.fakes.organizations import ALL, NOW_US, actor
from tests.fakes.rating_rig import RatingRig
from tests.unit.metering.usage_events import make_event

from penstock.billing import parties, service
from penstock.billing.documents import hash_of
from penstock.billing.model import Invoice, Issuer, Party, Recipient, Vat, VatCategory
from penstock.billing.reading import get_invoice, read_content
from penstock.billing.verifying import find_changed
from penstock.contract.usage import UsageBatch, UsageEvent
from penstock.control.books import UsageBooks
from penstock.metering import service as metering
from penstock.storage.database import Database

MONTH = "2026-08"
AUGUST_US = 1_785_542_400_000_000
"""When it begins; the rig's time is in September."""
DAY_US = 86_400 * 10**6
PRICE_IN = Fraction(1_000_000_000_003, 10**18)
"""Of a token of the model `small`: no line is whole cents."""
PRICE_OUT = Fraction(5, 2) / 10**6
_numbers = count(1)


def make_party(**members: Any) -> Party:
    """Return who an invoice may be from or to."""
    values: dict[str, Any] = {
        "name": "Acme GmbH & Co. <KG>",
        "address": ("Hauptstraße 1", "Hinterhaus"),
        "postal_code": "10115",
        "city": "Berlin",
        "country": "DE",
        "vat_id": "DE123456789",
        "registration_id": "HRB 4711",
        "electronic_scheme": "EM",
        "electronic_address": "bills@acme.example",
    }
    return Party(**values | members)


def make_issuer(**members: Any) -> Issuer:
    """Return who may send invoices."""
    values: dict[str, Any] = {
        "party": make_party(name="Penstock AG", vat_id="DE987654321"),
        "number_prefix": "INV-",
        "payment_days": 14,
        "payment_note": "Please pay to DE02 1203 0000 0000 2020 51.",
    }
    return Issuer(**values | members)


def make_vat(category: VatCategory = "S", rate_bps: int = 1_900) -> Vat:
    """Return how an organization may be taxed."""
    reason = "" if category in {"S", "Z"} else "because of the law"
    return Vat(category=category, rate_bps=rate_bps if category == "S" else 0, reason=reason)


def make_recipient(organization_id: str, vat: Vat | None = None, **members: Any) -> Recipient:
    """Return who may get the invoices of an organization."""
    return Recipient(
        organization_id=organization_id, party=make_party(), vat=vat or make_vat(), **members
    )


def use(organization: str, at_us: int = AUGUST_US, **members: Any) -> UsageEvent:
    """Return the use of a model that has a price: 4 cents and something without other words."""
    values = {
        "model": "small",
        "input_tokens": 15_003,
        "output_tokens": 10_000,
        "reasoning_output_tokens": None,
        **members,
    }
    number = next(_numbers)
    return make_event(
        number,
        event_id=f"01977f5e-3c00-7000-9000-{number:012x}",
        organization=organization,
        started_at_ns=at_us * 1_000,
        **values,
    )


def price_of(*events: UsageEvent) -> Fraction:
    """Return what uses of a model cost, reckoned without our code."""
    return sum(
        (one.input_tokens * PRICE_IN + one.output_tokens * PRICE_OUT for one in events), Fraction(0)
    )


class BillingRig:
    """A database with a price, an issuer, and whatever is used and billed in it."""

    def __init__(self, database: Database) -> None:
        """See the class."""
        self.database = database
        self.books = UsageBooks("EUR")

    async def begin(self) -> None:
        """Set the price, and who sends invoices."""
        rating = RatingRig(self.database)
        await rating.add_price(await rating.add_book("list"), "prc_small", "small")
        await self.set_issuer()

    async def set_issuer(self, **members: Any) -> None:
        """Say who sends invoices."""
        async with self.database.write(ALL) as session:
            await parties.set_issuer(session, actor(), make_issuer(**members), None)

    async def set_recipient(
        self, organization: str, vat: Vat | None = None, **members: Any
    ) -> None:
        """Say who gets the invoices of an organization."""
        async with self.database.write(ALL) as session:
            recipient = make_recipient(organization, vat, **members)
            await parties.set_recipient(session, actor(), recipient, None)

    async def deliver(self, *events: UsageEvent, recorded_at_us: int | None = None) -> None:
        """Have usage come in: stored, rated and booked; right after it was used, if not said."""
        latest_us = max(one.started_at_ns for one in events) // 1_000
        batch = UsageBatch(f"node-{next(_numbers)}/0", 1, tuple(events))
        delivery = metering.prepare_batch(batch, recorded_at_us or latest_us + 1)
        async with self.database.write(ALL) as session:
            await metering.record_events(session, ALL, [delivery], self.books)

    async def draft(self, organization: str, month: str = MONTH, **options: Any) -> Invoice:
        """Draft the invoice over a month."""
        async with self.database.write(ALL) as session:
            return await service.draft_invoice(
                session,
                actor(options.pop("at_us", NOW_US)),
                organization_id=organization,
                month=month,
                currency=options.get("currency"),
                default="EUR",
            )

    async def finalize(self, invoice_id: str, at_us: int = NOW_US, grace_s: int = 0) -> Invoice:
        """Issue a draft."""
        async with self.database.write(ALL) as session:
            return await service.finalize_invoice(
                session, actor(at_us), invoice_id, grace_s=grace_s
            )

    async def bill(self, organization: str, month: str = MONTH, at_us: int = NOW_US) -> Invoice:
        """Draft and issue the invoice over a month."""
        draft = await self.draft(organization, month, at_us=at_us)
        return await self.finalize(draft.id, at_us)

    async def void(self, invoice_id: str, at_us: int = NOW_US) -> Invoice:
        """Take an invoice back."""
        async with self.database.write(ALL) as session:
            return await service.void_invoice(session, actor(at_us), invoice_id)

    async def pay(self, invoice_id: str, reference: str = "payment-1") -> Invoice:
        """Have an invoice be paid."""
        async with self.database.write(ALL) as session:
            return await service.pay_invoice(session, actor(), invoice_id, reference=reference)

    async def read(self, invoice_id: str) -> tuple[Invoice, dict[str, Any]]:
        """Return an invoice and what it says."""
        async with self.database.read(ALL) as session:
            invoice = await get_invoice(session, invoice_id)
            content = await read_content(session, invoice)
        assert content is not None
        assert invoice.content is None or hash_of(invoice.content) == invoice.hash
        return invoice, content

    async def find_wrong(self) -> set[str]:
        """Return the names of checks of the books and of invoices that find something."""
        async with self.database.read(ALL) as session:
            changed = await find_changed(session)
        return await find_violations(self.database) | ({"invoice_content"} if changed else set())


def exact(text: str) -> Fraction:
    """Return a decimal of an invoice, exactly."""
    return Fraction(text)


def amounts_of(content: dict[str, Any]) -> list[Fraction]:
    """Return what the lines of an invoice were charged."""
    return [exact(line["amount"]) for line in content["lines"]]
