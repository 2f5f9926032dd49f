"""Whether particulars can stand on an invoice. Pure.

Source: the business rules of EN 16931-1, whose names are beside those that are not plain.
"""

import re
from collections.abc import Iterator
from typing import Final

from penstock.billing.model import Issuer, Party, Recipient, Vat

_MAX_TEXT = 200
_MAX_LINES = 3
MAX_PAYMENT_DAYS: Final = 365
_LINE = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]*")
_CODES: Final = (
    "AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR "
    "BS BT BV BW BY BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ "
    "EC EE EG EH ER ES ET FI FJ FK FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW "
    "GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP KE KG KH KI KM KN KP KR KW KY "
    "KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV "
    "MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY "
    "QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG "
    "TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM "
    "ZW"
)
"""ISO 3166-1."""
_COUNTRIES: Final = frozenset(_CODES.split())
_VAT_ID = re.compile(r"(?P<country>[A-Z]{2})[0-9A-Z+*.]{2,14}")
_GREECE = "EL"
"""What Greece begins its VAT ids with (BR-CO-09)."""
_LEITWEG_ID = re.compile(r"[0-9]{2,12}(-[0-9A-Z]{1,30})?-[0-9]{2}")
# No digit at its end: two numbers would be written alike.
_PREFIX = re.compile(r"([0-9A-Z/_.-]{0,15}[A-Z/_.-])?")
SCHEMES: Final = ("EM", "0060", "0088", "0204", "9930")
"""Of electronic addresses: e-mail, DUNS, GLN, Leitweg-ID, German VAT id."""
_RATED: Final = "S"
_WITHOUT_REASON: Final = frozenset({"S", "Z"})


def find_issuer_fault(issuer: Issuer) -> str | None:
    """Return the first thing that is wrong with an issuer, as a sentence; None for nothing."""
    return next(_issuer_faults(issuer), None)


def _issuer_faults(issuer: Issuer) -> Iterator[str]:
    yield from _party_faults(issuer.party)
    if not (issuer.party.vat_id or issuer.party.registration_id):  # BR-CO-26
        yield "`party`: needs `vat_id` or `registration_id`, so that it is known who sells."
    if not _PREFIX.fullmatch(issuer.number_prefix):
        yield "`number_prefix`: use at most 16 of 0-9, A-Z, `/_.-`, and no digit last."
    if not 0 <= issuer.payment_days <= MAX_PAYMENT_DAYS:
        yield f"`payment_days`: use 0 to {MAX_PAYMENT_DAYS}."
    if not _is_line(issuer.payment_note):
        yield "`payment_note`: use one line of at most 200 characters."


def find_recipient_fault(recipient: Recipient) -> str | None:
    """Return the first thing that is wrong with a recipient, as a sentence; None for nothing."""
    return next(_recipient_faults(recipient), None)


def _recipient_faults(recipient: Recipient) -> Iterator[str]:
    yield from _party_faults(recipient.party)
    yield from _vat_faults(recipient.vat)
    if recipient.vat.category == "AE" and not recipient.party.vat_id:  # BR-AE-02
        yield "`party.vat_id`: is needed, for with reverse charge the recipient owes the tax."
    if recipient.leitweg_id and not _is_leitweg_id(recipient.leitweg_id):
        yield "`leitweg_id`: is none; it ends with a check number, as 04011000-1234512345-06."


def find_pair_fault(issuer: Issuer, recipient: Recipient) -> str | None:
    """Return why one cannot tax the other like this, as a sentence; None when it can."""
    if recipient.vat.category == "O":
        if not issuer.party.registration_id:  # BR-O-02 forbids VAT ids, BR-CO-26 wants something
            return "The issuer needs a `registration_id` for what is outside of VAT."
    elif not issuer.party.vat_id:  # BR-S-02, BR-Z-02, BR-E-02, BR-AE-02
        return "The issuer needs a `vat_id` for what is within VAT."
    return None


def _party_faults(party: Party) -> Iterator[str]:
    texts = {"name": party.name, "city": party.city, "postal_code": party.postal_code}
    texts |= {f"address[{place}]": line for place, line in enumerate(party.address)}
    texts["registration_id"] = party.registration_id
    texts["electronic_address"] = party.electronic_address
    for name, value in texts.items():
        if not _is_line(value):
            yield f"`party.{name}`: use one line of at most {_MAX_TEXT} characters."
    if not party.name.strip():
        yield "`party.name`: is missing."
    if not 1 <= len(party.address) <= _MAX_LINES or not all(map(str.strip, party.address)):
        yield f"`party.address`: use 1 to {_MAX_LINES} lines, none empty."
    if not party.city.strip():
        yield "`party.city`: is missing."
    if party.country not in _COUNTRIES:
        yield "`party.country`: is none; use two capitals of ISO 3166, e.g. DE."
    if party.vat_id and not _is_vat_id(party.vat_id):
        yield "`party.vat_id`: is none; it begins with the country, e.g. DE123456789."
    if bool(party.electronic_address.strip()) != bool(party.electronic_scheme):
        yield "`party.electronic_address`: goes with `electronic_scheme`; give both or none."
    if party.electronic_scheme and party.electronic_scheme not in SCHEMES:
        yield f"`party.electronic_scheme`: use one of {', '.join(SCHEMES)}."


def _vat_faults(vat: Vat) -> Iterator[str]:
    if vat.category == _RATED and not 0 < vat.rate_bps <= 10_000:  # noqa: PLR2004 - all of it
        yield "`vat.rate`: is out of range; use more than 0 and at most 100, with 2 decimals."
    if vat.category != _RATED and vat.rate_bps:
        yield "`vat.rate`: is only for category S."
    if not _is_line(vat.reason):
        yield f"`vat.reason`: use one line of at most {_MAX_TEXT} characters."
    if vat.category in _WITHOUT_REASON and vat.reason:  # BR-S-10, BR-Z-10
        yield "`vat.reason`: is only for categories that tax nothing: E, AE and O."
    if vat.category not in _WITHOUT_REASON and not vat.reason.strip():
        yield "`vat.reason`: is missing: say why nothing is taxed."


def _is_line(text: str) -> bool:
    return len(text) <= _MAX_TEXT and _LINE.fullmatch(text) is not None


def _is_vat_id(text: str) -> bool:
    match = _VAT_ID.fullmatch(text)
    return match is not None and match["country"] in _COUNTRIES | {_GREECE}


def _is_leitweg_id(text: str) -> bool:
    if not _LEITWEG_ID.fullmatch(text):
        return False
    # ISO 7064, modulus 97-10: letters are numbers from 10 on, the last two digits make it 1.
    digits = "".join(str(int(char, 36)) for char in text.replace("-", ""))
    return int(digits) % 97 == 1
