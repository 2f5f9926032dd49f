"""Listings in pages."""

import contextlib
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.kit.errors import PenstockError
from penstock.storage.errors import PAGE_CURSOR_INVALID
from penstock.storage.paging import PageRequest


@dataclass(frozen=True)
class Item:
    """Something with a place in a listing."""

    id: str
    created_at_us: int


@given(
    created_at_us=st.integers(0, 10**16 - 1),
    name=st.from_regex(r"[0-9A-Za-z_]{1,64}", fullmatch=True),
)
def test_a_cursor_leads_behind_its_item(created_at_us: int, name: str) -> None:
    """The cursor of a page leads to just behind its last item."""
    item = Item(name, created_at_us)
    page = PageRequest(limit=1).page([item, Item("next", 0)])
    assert page.items == [item]
    assert page.next_cursor is not None
    assert PageRequest.of(page.next_cursor, 7) == PageRequest((created_at_us, name), 7)


def test_the_last_page_has_no_cursor() -> None:
    """Where there is nothing more, nothing leads on."""
    assert PageRequest(limit=1).page([Item("a", 1)]).next_cursor is None
    assert PageRequest(limit=1).page([]).next_cursor is None


@given(cursor=st.text(max_size=40))
def test_any_text_breaks_nothing(cursor: str) -> None:
    """A text is a cursor, or has an error of its own."""
    with contextlib.suppress(PenstockError):
        assert PageRequest.of(cursor).after is not None


@pytest.mark.parametrize("cursor", ["", "x", "MSwnOyBEUk9QIFRBQkxF", "LTEsYQ", "MSwgYQ"])
def test_made_up_cursors_are_refused(cursor: str) -> None:
    """Empty cursors, negative times and odd ids are refused."""
    with pytest.raises(PenstockError) as caught:
        PageRequest.of(cursor)
    assert caught.value.error is PAGE_CURSOR_INVALID
