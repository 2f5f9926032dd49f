"""Books what changes when usage is rated again: beside the usage, in the ledger, in wallets.

It stands here because rooms that rate do not know the one that books.
"""

import dataclasses
from collections.abc import Sequence

from penstock.control.books import sum_up
from penstock.ledger.service import post_usage
from penstock.limits.wallets import move_wallets
from penstock.rating.model import Rated
from penstock.rating.service import record_rated
from penstock.storage.sessions import WriteSession


async def post_differences(
    session: WriteSession,
    rated: Sequence[Rated],
    *,
    key: str,
    recorded_at_us: int,
    run_id: str,
    reverses: str | None = None,
) -> None:
    """Book differences; see `rating.rerating.Post`."""
    postings = [
        dataclasses.replace(one, reverses=reverses if one.charge_atto < 0 else None)
        for one in sum_up(rated, recorded_at_us)
    ]
    posted = await post_usage(session, postings, key=key, recorded_at_us=recorded_at_us)
    await record_rated(
        session, rated, posted.transfers, recorded_at_us=recorded_at_us, run_id=run_id
    )
    await move_wallets(session, posted.moves, "correction", recorded_at_us)
