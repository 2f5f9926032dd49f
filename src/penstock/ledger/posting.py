"""Booking of usage: what it cost organizations, and what it cost us."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

from penstock.ledger import credit_store, store
from penstock.ledger.drafts import draft_charge, draft_cost, moves_of
from penstock.ledger.model import Account, Draft, Grant, Mode, Posted, Taken, UsagePosting
from penstock.ledger.rules import (
    give_back,
    merge_postings,
    paying_accounts,
    rest_account,
    take,
    usage_key,
)
from penstock.storage.sessions import ReadSession, WriteSession

_DEFAULT_MODE: Mode = "postpaid"


async def find_currencies(
    session: ReadSession, organizations: Collection[str], default: str
) -> dict[str, str]:
    """Return the currency that each organization is charged in.

    Args:
        session: Where from.
        organizations: Ids, or names of nodes that run from a file.
        default: Of those that have no terms of their own.
    """
    terms = await credit_store.find_terms(session, session.scope, organizations)
    return {name: terms[name][0] if name in terms else default for name in organizations}


async def post_usage(
    session: WriteSession, postings: Sequence[UsagePosting], *, key: str, recorded_at_us: int
) -> Posted:
    """Book a batch of usage: one transfer for each organization, currency and kind.

    Grants pay first, those with the lowest priority, then the earliest expiry, then the oldest,
    if they were valid at the time of use; then the prepaid wallet, which may go below zero, or
    without one what is to be billed. A negative charge goes back to what paid last.

    Repeated under the same key it books nothing more, and returns the same transfers. Wallets are
    to be moved by the caller, in this transaction: what locks their rows comes later.

    Args:
        session: Of all organizations; stores what is rated, too.
        postings: What the batch cost. Parts that are 0 are not booked.
        key: Names the batch.
        recorded_at_us: The time.
    """
    wanted = merge_postings(postings)
    booked = await _find_booked(session, wanted, key)
    charged = [
        one
        for one in wanted
        if one.charge_atto and (one.organization, one.currency, "charge") not in booked
    ]
    drafts, left = await _charge(session, charged, key)
    drafts += [
        draft_cost(one, key)
        for one in wanted
        if one.cost_atto and (one.organization, one.currency, "cost") not in booked
    ]
    drafts.sort(key=lambda draft: (draft.organization, draft.id))
    await store.insert_transfers(session, session.scope, drafts, recorded_at_us)
    await credit_store.write_grants(session, session.scope, left)
    new: dict[tuple[str, str, str], str] = {
        (draft.organization, draft.currency, draft.kind): draft.id for draft in drafts
    }
    return Posted({**booked, **new}, moves_of(drafts))


async def _find_booked(
    session: ReadSession, postings: Sequence[UsagePosting], key: str
) -> dict[tuple[str, str, str], str]:
    if not postings:
        return {}
    currencies = {usage_key(key, one.currency): one.currency for one in postings}
    found = await store.find_booked(
        session,
        session.scope,
        {one.organization for one in postings},
        ("charge", "cost"),
        currencies.keys(),
    )
    return {(owner, currencies[name], kind): one for (owner, kind, name), one in found.items()}


async def _charge(
    session: WriteSession, postings: Sequence[UsagePosting], key: str
) -> tuple[list[Draft], dict[str, int]]:
    """Return the transfers of charges, and what the grants that they use have left."""
    if not postings:
        return [], {}
    owners = {one.organization for one in postings}
    lowered = {one.organization for one in postings if one.charge_atto < 0}
    terms = await credit_store.find_terms(session, session.scope, owners)
    grants = await credit_store.lock_grants(session, session.scope, owners, all_of=lowered)
    by_owner: defaultdict[tuple[str, str], dict[str, Grant]] = defaultdict(dict)
    for grant in grants.values():
        by_owner[grant.organization, grant.currency][grant.id] = grant
    drafts: list[Draft] = []
    left: dict[str, int] = {}
    for one in postings:
        own = by_owner[one.organization, one.currency]
        mode = terms[one.organization][1] if one.organization in terms else _DEFAULT_MODE
        rest = rest_account(one.organization, one.currency, mode)
        if one.charge_atto > 0:
            taken, changed = take(one.charge_atto, own.values(), rest, one.at_us)
        else:
            taken, changed = await _give_back(session, one, own, rest)
        drafts.append(draft_charge(one, key, taken))
        left |= changed
    return drafts, left


async def _give_back(
    session: WriteSession, posting: UsagePosting, grants: Mapping[str, Grant], rest: Account
) -> tuple[list[Taken], dict[str, int]]:
    accounts = paying_accounts(posting.organization, posting.currency)
    amount = -posting.charge_atto
    recorded: list[Taken] = []
    async for part in store.read_taken(session, session.scope, accounts, posting.reverses):
        recorded += part
        # What was given back before may be met first: only the sum says whether this is enough.
        if sum(one.amount_atto for one in recorded) >= amount:
            break
    return give_back(amount, recorded, grants, rest)
