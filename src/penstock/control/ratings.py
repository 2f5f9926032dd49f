"""Books in the ledger what changes when usage is rated again.

It stands here because rooms that rate do not know the one that books.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from penstock.control.books import sum_up
from penstock.ledger.service import post_usage
from penstock.rating.model import Rated
from penstock.storage.sessions import WriteSession


async def post_differences(
    session: WriteSession,
    rated: Sequence[Rated],
    *,
    key: str,
    recorded_at_us: int,
    reverses: str | None = None,
) -> Mapping[tuple[str, str, str], str]:
    """Book differences; see `rating.rerating.Post`."""
    postings = [
        dataclasses.replace(one, reverses=reverses if one.charge_atto < 0 else None)
        for one in sum_up(rated, recorded_at_us)
    ]
    return await post_usage(session, postings, key=key, recorded_at_us=recorded_at_us)
