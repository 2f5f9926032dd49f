"""HTML that is escaped unless somebody says otherwise."""

import html
from string import Template


class Html(str):
    """Text that is HTML already, and is not escaped again."""

    __slots__ = ()


def fill(template: str, **values: object) -> Html:
    """Return a template with its `$names` replaced by values, each escaped unless it is `Html`.

    >>> fill("<p>$text</p>", text="a < b")
    '<p>a &lt; b</p>'

    Raises:
        KeyError: The template has a name that no value has.
    """
    escaped = {
        name: value if isinstance(value, Html) else html.escape(str(value))
        for name, value in values.items()
    }
    return Html(Template(template).substitute(escaped))


def join(parts: list[Html]) -> Html:
    """Return the parts behind each other."""
    return Html("".join(parts))
