"""Usage that is stored, counted and rated, without a control plane."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from penstock.contract.money import PRICE_SCALE
from penstock.contract.usage import UsageBatch, UsageEvent
from penstock.metering import service as metering
from penstock.metering.model import Arrival
from penstock.rating import service as rating
from penstock.rating import store
from penstock.rating.model import BookKind, Price, Rated
from penstock.storage.database import Database
from penstock.storage.scope import Scope
from penstock.storage.sessions import WriteSession

ALL = Scope.all_organizations()
RECORDED_AT_US = 1_767_000_000_000_000


@dataclass
class RatedUsage:
    """A database with prices, and what was rated there."""

    database: Database
    rated: list[Rated] = field(default_factory=list)

    async def set_price(
        self,
        model: str,
        currency: str = "EUR",
        *,
        kind: BookKind = "list",
        unit: int = 1,
        from_us: int = 0,
        rates: Any = None,
    ) -> str:
        """Have a price: `unit` for a million input tokens, half for cached, double for output."""
        price_id = f"prc_{kind}_{currency}_{model}_{from_us}"
        async with self.database.write(ALL) as session:
            book = await store.make_default_book(session, ALL, kind, currency, 0)
            price = Price(
                id=price_id,
                book_id=book.id,
                organization_id=None,
                alias=model,
                upstream="",
                service_tier="",
                currency=currency,
                valid_from_us=from_us,
                valid_to_us=None,
                input=unit * PRICE_SCALE,
                cached_input=unit * PRICE_SCALE // 2,
                output=2 * unit * PRICE_SCALE,
                rates=rates,
                version=1,
                created_at_us=0,
                updated_at_us=0,
            )
            await store.prices.insert(session, ALL, price)
        return price_id

    async def add(
        self, events: Sequence[UsageEvent], currencies: Mapping[str, str] | None = None
    ) -> None:
        """Store events as a node's batch is, and rate those that are new."""
        batch = UsageBatch(producer="node-1/0", epoch=1, events=tuple(events))
        delivery = metering.prepare_batch(batch, RECORDED_AT_US)

        async def settle(session: WriteSession, arrivals: Sequence[Arrival]) -> None:
            new = [one.event for one in arrivals]
            named = currencies or {event.organization: "EUR" for event in new}
            found = await rating.rate_events(session, new, named)
            await rating.record_rated(session, found.rated, {}, recorded_at_us=RECORDED_AT_US)
            self.rated += found.rated

        async with self.database.write(ALL) as session:
            await metering.record_events(session, ALL, [delivery], settle)

    async def change(self, rated: Sequence[Rated], run_id: str, recorded_at_us: int) -> None:
        """Book changes of amounts, as a later run does."""
        async with self.database.write(ALL) as session:
            await rating.record_rated(
                session, rated, {}, recorded_at_us=recorded_at_us, run_id=run_id
            )
        self.rated += rated
