"""What an entry holds and what its hash covers."""

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fakes.organizations import actor

from penstock.access.rules import create_key
from penstock.audit.model import Entry, StoredEntry
from penstock.audit.rules import (
    FIRST_HASH,
    PERSONAL,
    REDACTED,
    canonical_json,
    chain_of,
    clean_text,
    find_break,
    link_entry,
    redact,
)
from penstock.catalog.registrations.rules import create_token

ENTRY = Entry(
    actor=actor(),
    action="key.create",
    resource_kind="key",
    resource_id="A" * 12,
    organization_id="org_a",
    after={"name": "key", "labels": {"a": "b"}, "version": 1},
)
KEY = create_key()
TOKEN_ID, TOKEN = create_token()


@pytest.mark.parametrize(
    ("value", "redacted"),
    [
        ({"secret": "x"}, {"secret": REDACTED}),
        ({"Client-Secret": "x"}, {"Client-Secret": REDACTED}),
        ({"client_secret": ["x"]}, {"client_secret": REDACTED}),
        ({"api_key": "x", "key": "x"}, {"api_key": REDACTED, "key": REDACTED}),
        ({"mac": b"x"}, {"mac": REDACTED}),
        ({"secret_id": "sec_1", "token_count": 3}, {"secret_id": "sec_1", "token_count": 3}),
        ({"input_tokens": 3}, {"input_tokens": 3}),
        ({"secret": None}, {"secret": None}),
        ({"email": "a@b.c", "subject": "s"}, {"email": PERSONAL, "subject": PERSONAL}),
        ({"note": f"is {KEY}!"}, {"note": f"is {KEY[8:20]} {REDACTED}!"}),
        ({"note": f"is {TOKEN}!"}, {"note": f"is {TOKEN_ID[4:]} {REDACTED}!"}),
        ({"note": "Bearer abcdefgh12345"}, {"note": f"Bearer {REDACTED}"}),
        ([{"deep": {"password": "x"}}], [{"deep": {"password": REDACTED}}]),
        ({"raw": b"x", "ratio": 0.5}, {"raw": REDACTED, "ratio": REDACTED}),
        ({"is_live": True, "none": None, "n": 1}, {"is_live": True, "none": None, "n": 1}),
    ],
)  # fmt: skip
def test_secrets_and_persons_are_taken_out(value: object, redacted: object) -> None:
    """Secrets go by their name and by their form, persons by their name, and nothing else goes."""
    assert redact(value) == redacted


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=12), children, max_size=3)
    ),
    max_leaves=12,
)


@given(value=JSON)
def test_a_key_never_gets_through(value: object) -> None:
    """Wherever a key stands in a value, it is not in what is recorded."""
    assert KEY not in str(redact({"a": [value, {"b": f"x {KEY} y"}], "c": KEY}))


@given(value=JSON)
def test_what_was_redacted_stays_as_it_is(value: object) -> None:
    """Redacting twice is redacting once, and the result has one way to be written."""
    once = redact(value)
    assert redact(once) == once
    assert canonical_json(once) == canonical_json(once)


def test_the_order_of_members_does_not_matter() -> None:
    """Equal values are written alike, however they were made."""
    assert canonical_json({"b": 1, "a": "é"}) == canonical_json({"a": "é", "b": 1})
    assert canonical_json({"a": "é"}) == b'{"a":"\\u00e9"}'
    with pytest.raises(ValueError, match="Out of range"):
        canonical_json(float("nan"))


def test_texts_of_callers_are_bounded() -> None:
    """A text that a caller chose is cut, and keeps no character that cannot be seen."""
    assert clean_text("a\0b\n\ud800") == "a\ufffdb\ufffd\ufffd"
    assert len(clean_text("x" * 10_000)) == 500
    assert KEY not in clean_text(KEY)


@pytest.mark.parametrize(
    "name", [name for name in StoredEntry.__dataclass_fields__ if name != "hash"]
)
def test_every_member_is_under_the_hash(name: str) -> None:
    """Whatever member of a link is edited, the link is broken, but for the erasable address."""
    link = link_entry(ENTRY, 1, FIRST_HASH)
    assert find_break(link, 1, FIRST_HASH) is None
    value = getattr(link, name)
    edited: Any = value + 1 if isinstance(value, int) else f"{value}x"
    if name in {"before", "after"}:
        edited = {"version": 2}
    changed = dataclasses.replace(link, **{name: edited})
    assert (find_break(changed, 1, FIRST_HASH) is None) is (name == "address")


def test_a_link_holds_to_the_one_before() -> None:
    """The same entry behind another link, or in another place, has another hash."""
    first = link_entry(ENTRY, 1, FIRST_HASH)
    second = link_entry(ENTRY, 2, first.hash)
    assert find_break(second, 2, first.hash) is None
    assert find_break(second, 2, FIRST_HASH) is not None
    assert find_break(second, 1, FIRST_HASH) == "entries were deleted before it"
    assert find_break(first, 2, first.hash) == "its number is there twice"


def test_each_organization_has_its_chain() -> None:
    """What belongs to no organization is in the platform's chain."""
    assert (chain_of("org_a"), chain_of(None)) == ("org_a", "platform")
