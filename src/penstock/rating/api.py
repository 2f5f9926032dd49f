"""HTTP endpoints of prices."""

from penstock.catalog.endpoints import Noun, create_router
from penstock.rating import service
from penstock.rating.errors import PRICE_EXISTS, PRICE_INVALID, PRICE_TOO_SOON, PRICE_USED
from penstock.rating.schemas import NewPriceBody, PriceBody, PricePage, PricesQuery

prices = create_router("prices")

_price = Noun(router=prices, name="price", plural="prices", body=PriceBody, invalid=PRICE_INVALID)
_price.add_reads(PricePage, PricesQuery, get=service.get_price, find=service.list_prices)
_price.add_create(NewPriceBody, service.create_price, PRICE_TOO_SOON, PRICE_EXISTS)
_price.add_delete(service.delete_price, PRICE_USED)
