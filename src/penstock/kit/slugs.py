"""Slugs: short names that no file, URL or shell reads in another way."""

import re

SLUG = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


def check_slug(text: str) -> str:
    """Return a slug unchanged.

    Raises:
        ValueError: What is wrong and the remedy, to be put behind the name of what it is for.
    """
    if SLUG.fullmatch(text) is None:
        message = "is no name; use 1 to 63 of a-z, 0-9, dot, underscore and hyphen"
        raise ValueError(message)
    return text
