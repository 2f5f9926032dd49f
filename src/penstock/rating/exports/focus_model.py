"""What rows of FOCUS are made of."""

from collections.abc import Mapping
from dataclasses import dataclass

from penstock.contract.usage import Meter


@dataclass(frozen=True, slots=True, kw_only=True)
class ChargedDay:
    """What was charged for a day's usage by one price: all events that are alike."""

    day_us: int
    organization: str
    project: str
    key_id: str
    model: str
    upstream: str
    data_class: str
    region: str
    service_tier: str
    currency: str
    price_id: str
    is_change: bool
    """Whether these amounts change what had been charged before, by a later rating."""
    is_late: bool
    """Whether that was in another month."""
    amount_atto: int
    figures: Mapping[Meter, int]
