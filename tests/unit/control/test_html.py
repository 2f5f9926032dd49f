"""HTML that is escaped."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.control.html import Html, fill, join


@given(st.text())
def test_values_cannot_leave_their_place(text: str) -> None:
    """No text becomes a tag, an attribute or another placeholder."""
    page = fill('<p title="$text">$text</p>', text=text)
    inside = page.removeprefix('<p title="').removesuffix("</p>")
    assert not set("<>") & set(inside.replace('">', "", 1))
    assert inside.count('"') == 1


def test_html_is_not_escaped_again() -> None:
    """What was filled once is put into another template as it is."""
    rows = [fill("<td>$value</td>", value=value) for value in ("a&b", "$x")]
    assert fill("<tr>$rows</tr>", rows=join(rows)) == "<tr><td>a&amp;b</td><td>$x</td></tr>"


def test_a_forgotten_value_is_an_error() -> None:
    """A template with a name that nobody gave is a mistake, not an empty place."""
    with pytest.raises(KeyError):
        fill("$given $forgotten", given=Html("<b>"))
