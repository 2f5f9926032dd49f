"""What nodes are told of billing terms: who may not use what has no price in which currency."""

from collections.abc import Collection, Iterable
from typing import TypeAlias

from penstock.contract.snapshot_store import billed_name, billed_record
from penstock.ledger import credit_store
from penstock.ledger.model import Terms
from penstock.storage.sessions import ReadSession

Records: TypeAlias = dict[bytes, bytes]


async def find_changed(session: ReadSession, ids: Collection[str]) -> tuple[Records, set[bytes]]:
    """Return the records that nodes shall have of organizations, and names of those to go."""
    puts = _tell(await credit_store.list_terms(session, session.scope, ids=ids))
    return puts, set(map(billed_name, ids)) - puts.keys()


async def list_page(session: ReadSession, after_id: str, limit: int) -> tuple[Records, str]:
    """Return the records of organizations behind an id, and the id to go on behind."""
    page = await credit_store.list_terms(session, session.scope, after_id=after_id, limit=limit)
    return _tell(page), page[-1].organization_id if len(page) == limit else ""


def _tell(terms: Iterable[Terms]) -> Records:
    return dict(
        billed_record(one.organization_id, one.currency)
        for one in terms
        if one.unpriced == "refuse"
    )
