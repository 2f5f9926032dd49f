"""Issued invoices as XML: EN 16931 in the syntax of UN/CEFACT (CII), made of what they say.

What it is made with is an extra (`pip install 'penstock[einvoice]'`), and imported when it is used.
Source: EN 16931-1, whose terms are named beside what is not plain.
"""

from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from importlib.util import find_spec
from typing import Any, Final

from penstock.billing.errors import EINVOICE_UNAVAILABLE
from penstock.kit.errors import PenstockError
from penstock.ledger.money import digits_of

GUIDELINE: Final = "urn:cen.eu:en16931:2017"
_TYPES: Final = {"invoice": "380", "credit_note": "381"}
_PIECES: Final = "C62"
_TOKENS: Final = Decimal(1_000_000)
"""What the price of a token is for (BT-149)."""
_PLACES: Final = 12
"""Decimals of a price (BT-146): times quantity, rounded, it is the line's amount."""
_DIGITS: Final = 2
"""Decimals of amounts that the standard knows."""


def write_xml(said: Mapping[str, Any]) -> bytes:
    """Return an issued invoice or credit note as XML.

    Args:
        said: What it says; see `documents`.

    Raises:
        PenstockError: `EINVOICE_UNAVAILABLE`: the extra is missing, or the currency has more
            decimals than the standard.
    """
    if find_spec("drafthorse") is None:
        raise PenstockError(EINVOICE_UNAVAILABLE, "The control plane lacks the extra `einvoice`.")
    from drafthorse.models.document import Document  # noqa: PLC0415  # an extra

    if digits_of(said["currency"]) > _DIGITS:
        raise PenstockError(EINVOICE_UNAVAILABLE, "The standard knows two decimals, no more.")
    document = Document()
    document.context.guideline_parameter.id = GUIDELINE
    document.header.id = said["number"]
    document.header.type_code = _TYPES[said["kind"]]
    document.header.issue_date_time = date.fromisoformat(said["issued_on"])
    trade = document.trade
    trade.agreement.buyer_reference = said["leitweg_id"] or said["organization_id"]
    # BR-O-02: outside of the scope of VAT nobody has a VAT id.
    has_vat = said["vat"]["category"] != "O"
    _add_party(trade.agreement.seller, said["seller"], has_vat=has_vat)
    _add_party(trade.agreement.buyer, said["buyer"], has_vat=has_vat)
    trade.delivery.event.occurrence = date.fromisoformat(said["until"])
    for place, line in enumerate(said["lines"], 1):
        trade.items.add(_line(place, line, said))
    _add_settlement(trade.settlement, said)
    # Its own schema is one of the older Factur-X; tests look with that of the standard.
    xml: bytes = document.serialize(schema=None)
    return xml


def _add_party(party: Any, who: Mapping[str, Any], *, has_vat: bool) -> None:
    from drafthorse.models.party import TaxRegistration  # noqa: PLC0415  # an extra

    party.name = who["name"]
    for name, line in zip(("line_one", "line_two", "line_three"), who["address"], strict=False):
        setattr(party.address, name, line)
    party.address.postcode = who["postal_code"]
    party.address.city_name = who["city"]
    party.address.country_id = who["country"]
    if who["registration_id"]:
        party.legal_organization.id = ("", who["registration_id"])
    if who["electronic_address"]:
        party.electronic_address.uri_ID = (who["electronic_scheme"], who["electronic_address"])
    if who["vat_id"] and has_vat:
        party.tax_registrations.add(TaxRegistration(id=("VA", who["vat_id"])))


def _line(place: int, line: Mapping[str, Any], said: Mapping[str, Any]) -> Any:
    from drafthorse.models.tradelines import LineItem  # noqa: PLC0415  # an extra

    quantity, price, base = price_of(line["quantities"], Decimal(line["net"]))
    item = LineItem()
    item.document.line_id = str(place)
    item.product.name = line["model"]
    counted = ", ".join(f"{name} {count}" for name, count in line["quantities"].items())
    item.product.description = f"{line['project_id']}, {line['month']}: {counted or 'rated again'}"
    item.agreement.net.amount = f"{price:f}"  # as 1E-7 it is no decimal of XML Schema
    item.agreement.net.basis_quantity = (base, _PIECES)
    item.delivery.billed_quantity = (quantity, _PIECES)
    _add_tax(item.settlement.trade_tax, said["vat"])
    since = date.fromisoformat(f"{line['month']}-01")
    item.settlement.period.start = since
    until = date(since.year + since.month // 12, since.month % 12 + 1, 1)
    item.settlement.period.end = date.fromordinal(until.toordinal() - 1)
    item.settlement.monetary_summation.total_amount = Decimal(line["net"])
    return item


def price_of(quantities: Mapping[str, int], net: Decimal) -> tuple[Decimal, Decimal, Decimal]:
    """Return quantity, price and how many the price is for, of a line.

    The price is the mean over what was used: an event is rated as a whole. A line without tokens,
    or with a sign that no price has, is one piece, or is counted in requests.

    >>> price_of({"input_tokens": 3_000_000, "output_tokens": 1_000_000}, Decimal("10.00"))
    (Decimal('4000000'), Decimal('2.5'), Decimal('1000000'))
    >>> price_of({}, Decimal("-1.25"))
    (Decimal('-1'), Decimal('1.25'), Decimal('1'))
    """
    tokens = Decimal(quantities.get("input_tokens", 0) + quantities.get("output_tokens", 0))
    for quantity, base in ((tokens, _TOKENS), (Decimal(quantities.get("requests", 0)), Decimal(1))):
        if not quantity or (net and (quantity < 0) != (net < 0)):
            continue
        price = round(net * base / quantity, _PLACES).normalize()
        if round(price * quantity / base, _DIGITS) == net:
            return quantity, price + 0, base
    return Decimal(-1 if net < 0 else 1), abs(net).normalize() + 0, Decimal(1)


def _add_tax(tax: Any, vat: Mapping[str, Any]) -> None:
    tax.type_code = "VAT"
    tax.category_code = vat["category"]
    if vat["category"] != "O":  # BR-O-05
        tax.rate_applicable_percent = Decimal(vat["rate"])


def _add_settlement(settlement: Any, said: Mapping[str, Any]) -> None:
    from drafthorse.models.accounting import ApplicableTradeTax  # noqa: PLC0415  # an extra
    from drafthorse.models.payment import PaymentTerms  # noqa: PLC0415  # as above

    currency, net = said["currency"], Decimal(said["net"])
    settlement.currency_code = currency
    tax = ApplicableTradeTax()
    tax.calculated_amount = Decimal(said["tax"])
    tax.basis_amount = net
    _add_tax(tax, said["vat"])
    if said["vat"]["reason"]:
        tax.exemption_reason = said["vat"]["reason"]
    settlement.trade_tax.add(tax)
    settlement.period.start = date.fromisoformat(said["since"])
    settlement.period.end = date.fromisoformat(said["until"])
    terms = PaymentTerms()
    terms.due = date.fromisoformat(said["due_on"])
    if said["payment_note"]:
        terms.description = said["payment_note"]
    settlement.terms.add(terms)
    credit = Decimal(said["credit"]["net"])
    if credit:
        settlement.allowance_charge.add(_credit(credit, said["vat"]))
    sums = settlement.monetary_summation
    sums.line_total = sum(Decimal(line["net"]) for line in said["lines"])
    sums.charge_total = max(-credit, Decimal("0.00"))
    sums.allowance_total = max(credit, Decimal("0.00"))
    sums.tax_basis_total = net
    sums.tax_total = (Decimal(said["tax"]), currency)
    sums.grand_total = Decimal(said["gross"])
    sums.due_amount = Decimal(said["gross"])
    if said["kind"] == "credit_note":
        document = settlement.invoice_referenced_document
        document.issuer_assigned_id = said["preceding"]["number"]
        document.issue_date_time = date.fromisoformat(said["preceding"]["issued_on"])


def _credit(credit: Decimal, vat: Mapping[str, Any]) -> Any:
    """Return what is taken off below the lines (BG-20), or added when credit came back (BG-21)."""
    from drafthorse.models.accounting import (  # noqa: PLC0415  # an extra
        CategoryTradeTax,
        TradeAllowanceCharge,
    )

    part = TradeAllowanceCharge()
    part.indicator = credit < 0
    part.actual_amount = abs(credit)
    part.reason = "Paid by credit" if credit > 0 else "Credit given back"
    tax = CategoryTradeTax()
    _add_tax(tax, vat)
    part.trade_tax.add(tax)
    return part
