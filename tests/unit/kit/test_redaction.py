"""Secrets are looked for in steps; what the first steps pass over has none."""

from itertools import product

import pytest

from penstock.kit.logs import redaction
from penstock.kit.logs.redaction import redact

BEFORE = ("", "ae-", "a ")
WORDS = (
    "ps_live_ ps_reg_ sk PK rk hvs HVB ghp GHO xoxa XOXB AKIA asia ASIA eyJ EYJ eyj Bearer basic"
    " Authorization cookie api-key https://me my_password token \u017fk s\u212a AK\u0130A as\u0131a"
)
BEGINNINGS = (*WORDS.split(), "-----BEGIN RSA PRIVATE KEY")
BETWEEN = ("", "-", "_", ".", "=", ":", ": ", " ", "\t", "\n", "\u00a0", '": "')
ENDS = ("abcdefab", "0123456789ABCDEF", "a@b", "abcdefab.d", "-----\nMII")


@pytest.mark.parametrize("kind", ["live", "test", "reg"])
def test_what_is_ours_is_known_by_its_form(kind: str) -> None:
    """Keys and registration tokens say what they are, and nothing more."""
    assert redact(f"got ps_{kind}_4mJ0wq8ZtK1c_abc.") == f"got ps_{kind}_[redacted]."


def test_no_secret_is_passed_over() -> None:
    """What is quick to look at decides nothing: the outcome is that of the whole search."""
    for parts in product(BEFORE, BEGINNINGS, BETWEEN, ENDS):
        text = "".join(parts)
        assert redact(text) == redaction._SECRETS.sub(redaction._replacement, text)
