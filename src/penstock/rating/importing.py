"""Prices as files have them: all of a file, or nothing of it."""

import re
from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from pydantic import ValidationError

from penstock.audit.model import Actor
from penstock.catalog.aliases import find_alias_by_name
from penstock.catalog.document import Path, format_path
from penstock.catalog.errors import DOCUMENT_INVALID, Finding, Mark, PlatformFileError, quoted
from penstock.kit.errors import PenstockError
from penstock.kit.moments import microseconds
from penstock.rating import store
from penstock.rating.errors import PRICE_INVALID
from penstock.rating.import_schemas import WrittenPrice
from penstock.rating.model import NewPrice, PutPrice
from penstock.rating.prices import put_price
from penstock.storage.paging import PageRequest
from penstock.storage.sessions import WriteSession

_MEMBER = re.compile(r"`(?P<member>[\w.]+)`: (?P<problem>.*)", re.DOTALL)
_BUG_STATUS = 500


async def import_prices(
    session: WriteSession, actor: Actor, entries: Sequence[Any]
) -> list[tuple[int, PutPrice]]:
    """Have models cost what a file says, and return what it took, by place in the file.

    Args:
        session: Where to.
        actor: Who does it.
        entries: As `WrittenPrice` has them.

    Raises:
        PlatformFileError: Everything that is wrong with them.
    """
    findings: list[Finding] = []
    written: list[tuple[int, WrittenPrice]] = []
    for index, entry in enumerate(entries):
        try:
            written.append((index, WrittenPrice.model_validate(entry)))
        except ValidationError as error:
            findings += [
                _finding(
                    (index, *takewhile(_is_plain, fault["loc"])),
                    f"{fault['msg']}; see docs/how-to/set-prices.md for what is taken",
                )
                for fault in error.errors(include_url=False)
            ]
    findings += _find_repeated(written)
    imported = []
    # A later price is judged by those before it.
    for index, one in sorted(written, key=lambda each: _start(each[1])):
        try:
            imported.append((index, await put_price(session, actor, await _read(session, one))))
        except PenstockError as error:
            if error.error.status >= _BUG_STATUS:
                raise
            findings.append(_refused(index, error))
    if findings:
        raise PlatformFileError(findings, DOCUMENT_INVALID)
    return sorted(imported, key=lambda each: each[0])


async def _read(session: WriteSession, written: WrittenPrice) -> NewPrice:
    """Return what is to be, with ids in place of names."""
    book, currency = written.book, written.currency
    if book == f"cost-{currency}":
        return written.to_new(model=written.model)
    book_id = None
    if book not in {None, f"list-{currency}"}:
        found = await store.books.list(session, session.scope, PageRequest(limit=1), name=book)
        if not found.items:
            problem = f"there is no price book {quoted(str(book))}; create it, or leave it out"
            raise PenstockError(PRICE_INVALID, f"`book`: {problem}")
        book_id = found.items[0].id
        if found.items[0].kind == "cost":
            return written.to_new(model=written.model, book_id=book_id)
    alias = await find_alias_by_name(session, written.model)
    if alias is None:
        problem = f"there is no alias {quoted(written.model)}; create it, or correct the name"
        raise PenstockError(PRICE_INVALID, f"`model`: {problem}")
    return written.to_new(alias_id=alias.id, book_id=book_id)


def _find_repeated(written: Sequence[tuple[int, WrittenPrice]]) -> list[Finding]:
    first: dict[tuple[Any, ...], int] = {}
    findings = []
    for index, one in written:
        book = one.book or f"list-{one.currency}"
        place = (book, one.model, one.upstream, one.service_tier, one.valid_from)
        if first.setdefault(place, index) != index:
            problem = f"is the same price as prices[{first[place]}]; remove one of the two"
            findings.append(_finding((index,), problem))
    return findings


def _start(written: WrittenPrice) -> int:
    return microseconds(written.valid_from) or 0


def _refused(index: int, error: PenstockError) -> Finding:
    match = _MEMBER.fullmatch(str(error))
    member, problem = match.groups() if match else (None, str(error))
    if ";" not in problem:
        remedy = error.error.caller_action
        problem = f"{problem.rstrip('.')}; {remedy[0].lower()}{remedy[1:].rstrip('.')}"
    return _finding((index, *(member.split(".") if member else ())), problem)


def _is_plain(step: str | int) -> bool:
    # The caller's own words may be of any length, and have halves of characters.
    return isinstance(step, int) or (step.isascii() and step.isidentifier())


def _finding(place: Path, problem: str) -> Finding:
    path = ("prices", *place)
    return Finding("document", Mark(), format_path(path), problem, path)
