"""Values of wallets. Amounts are exact (`limits.prices`), times microseconds since the epoch."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

Cause: TypeAlias = Literal[
    "overrun", "hold_expired", "unheld", "correction", "grant_expired", "terms"
]
"""Why more was taken from a wallet than was free in it: usage that cost more than was held for it,
whose hold had expired, or that held nothing of it; a correction or another price; a grant that
ended while requests held it; what was missing when the wallet began to count."""


@dataclass(frozen=True, slots=True)
class WalletMove:
    """What a transfer of the ledger put into a wallet, or took from it when it is below 0."""

    organization_id: str
    currency: str
    amount_atto: int
    source: str
    """Id of the transfer."""


@dataclass(frozen=True, slots=True)
class Overdraft:
    """What was taken from a wallet beyond what was free in it, and why."""

    organization_id: str
    currency: str
    source: str
    """Id of the transfer that took it."""
    cause: Cause
    amount_atto: int


@dataclass(frozen=True, slots=True)
class Lapse:
    """Credit in a wallet that is not held any more, for it ends within moments."""

    amount_atto: int = 0
    next_us: int | None = None
    """When the next part ends; None when none does."""
