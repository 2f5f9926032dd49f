"""What a source of endpoints says."""

from collections.abc import AsyncGenerator, Callable
from typing import NamedTuple, TypeAlias

from penstock.catalog.discovery import Source
from penstock.contract.snapshot import Endpoint


class Answer(NamedTuple):
    """What was learned from a source just now."""

    endpoints: tuple[Endpoint, ...] | None
    """All of them; None when that is not known, so that what was known stays."""
    fault: str = ""
    """What went wrong, if anything did."""


Follow: TypeAlias = Callable[[Source], AsyncGenerator[Answer, None]]
"""Yields an answer each time that there is one; sees by itself to how often, also of failures."""
