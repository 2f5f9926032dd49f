"""Which prices usage is rated by again: those of one book, or those that it is rated by anyway."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from penstock.contract.usage import UsageEvent
from penstock.rating import store
from penstock.rating.model import PriceBook, RatedKind
from penstock.rating.price_rules import read_good
from penstock.rating.rerating import Change, Known
from penstock.rating.rules import ReadPrice, Shelf, is_absurd
from penstock.rating.service import Books, admitted_us, read_books
from penstock.storage.sessions import ReadSession


@dataclass(frozen=True, slots=True)
class Choice:
    """What events may be rated by.

    What has no price there stays as it is, and so does what is charged in another currency.
    """

    books: Books | None
    """Those that are used; None when it is one book."""
    book: PriceBook | None
    shelf: Shelf

    def changes(self, known: Known) -> Iterator[Change]:
        """Yield what is to change about an event."""
        for kind, currency, price in self._prices(known):
            head = known.heads.get(kind)
            is_same = head is not None and (
                head.price_id == price.price.id or head.currency != currency
            )
            # Without a charge it was never rated: it was there before prices were.
            is_missing = head is None and ("charge" not in known.heads or kind == "charge")
            if not (is_same or is_missing or known.is_void or is_absurd(price, known.used)):
                yield Change(known, kind, price, known.used, currency)

    def _prices(self, known: Known) -> Iterator[tuple[RatedKind, str, ReadPrice]]:
        if self.book is not None:
            found = self.find(known.event)
            if found is not None:
                kind: RatedKind = "cost" if self.book.kind == "cost" else "charge"
                yield kind, self.book.currency, found
            return
        if self.books is None:
            return
        charge = known.heads.get("charge")
        for currency, read in self.books.charges(known.event):
            if charge is not None and currency == charge.currency:
                yield "charge", currency, read
        paid = known.heads.get("cost") or charge
        cost = self.books.cost(known.event, "" if paid is None else paid.currency)
        if cost is not None:
            yield "cost", *cost

    def find(self, event: UsageEvent) -> ReadPrice | None:
        """Return the price of the one book that an event has."""
        if self.book is None:
            return None
        is_cost = self.book.kind == "cost"
        return self.shelf.find(
            [self.book.id],
            event.served_model if is_cost else event.model,
            admitted_us(event),
            upstream=event.upstream if is_cost else "",
            service_tier=event.service_tier,
        )


async def read_choice(
    session: ReadSession, book_id: str | None, events: Sequence[UsageEvent]
) -> Choice:
    """Return what events may be rated by.

    Args:
        session: Where from.
        book_id: The one book; those that are used when None.
        events: Which.
    """
    if book_id is None:
        return Choice(await read_books(session, events), None, Shelf(()))
    book = await store.books.get(session, session.scope, book_id)
    models = {event.model for event in events} | {event.served_model for event in events}
    prices = await store.list_book_prices(session, session.scope, [book_id], models)
    return Choice(None, book, Shelf(read_good(prices, is_cost=book.kind == "cost")))
