"""HTTP endpoints of prices and their books."""

from fastapi import Response

from penstock.audit.door import operation
from penstock.catalog.endpoints import CallParameter, Noun, create_router
from penstock.catalog.errors import DOCUMENT_INVALID
from penstock.rating import books as book_service
from penstock.rating import importing
from penstock.rating import prices as service
from penstock.rating.errors import (
    BOOK_EXISTS,
    BOOK_INVALID,
    PRICE_EXISTS,
    PRICE_INVALID,
    PRICE_TOO_SOON,
    PRICE_USED,
)
from penstock.rating.import_schemas import ImportAnswerBody, ImportBody
from penstock.rating.schemas import (
    BookBody,
    BookPage,
    BooksQuery,
    NewBookBody,
    NewPriceBody,
    PriceBody,
    PricePage,
    PricesQuery,
)
from penstock.storage.sessions import WriteSession

prices = create_router("prices")

_price = Noun(router=prices, name="price", plural="prices", body=PriceBody, invalid=PRICE_INVALID)
_price.add_reads(PricePage, PricesQuery, get=service.get_price, find=service.list_prices)
_price.add_create(NewPriceBody, service.create_price, PRICE_TOO_SOON, PRICE_EXISTS)
_price.add_delete(service.delete_price, PRICE_USED)


@prices.post(
    "/import",
    summary="Have models cost what a price file says",
    description="In one transaction: everything, or nothing. Again, it changes nothing.",
    response_model=ImportAnswerBody,
    **operation("prices:import", DOCUMENT_INVALID, is_change=True),
)
async def import_prices(call: CallParameter, body: ImportBody) -> Response:
    """Have models cost what a price file says."""

    async def work(session: WriteSession) -> ImportAnswerBody:
        imported = await importing.import_prices(session, call.actor, body.prices)
        return ImportAnswerBody.build(imported, is_dry_run=body.is_dry_run)

    return await (call.rehearse(work) if body.is_dry_run else call.change(work))


price_books = create_router("price_books")

_book = Noun(
    router=price_books,
    name="price_book",
    plural="price_books",
    body=BookBody,
    invalid=BOOK_INVALID,
)
_book.add_reads(BookPage, BooksQuery, get=book_service.get_book, find=book_service.list_books)
_book.add_create(NewBookBody, book_service.create_book, BOOK_EXISTS)
