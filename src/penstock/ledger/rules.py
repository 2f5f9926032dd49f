"""Decisions of the ledger: pure, no clock, no I/O."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import lru_cache

from penstock.kit.derived_ids import derive_id
from penstock.ledger.model import (
    GRANT_ACCOUNTS,
    REST_ACCOUNTS,
    Account,
    AccountKind,
    Grant,
    Lot,
    Mode,
    Taken,
    TransferKind,
    UsagePosting,
)
from penstock.limits.prices import ATTO_IN_NANO

MAX_LINE_ATTO = 2**62 * ATTO_IN_NANO
"""More than that is booked in several lines: a column holds twice as much."""
MAX_POSTING_ATTO = 5_000 * MAX_LINE_ATTO
"""More than 2,000 rated events can cost, each as much as its column holds."""


@lru_cache(maxsize=100_000)
def account_of(organization: str, kind: AccountKind, currency: str, qualifier: str = "") -> Account:
    """Return an account. Its id follows from the rest, so nobody has to look for it."""
    account_id = derive_id("acc", organization, kind, currency, qualifier)
    return Account(account_id, organization, kind, currency, qualifier)


def transfer_id_of(organization: str, kind: TransferKind, key: str) -> str:
    """Return the id of a transfer: what is booked twice under a key has one id, and is refused."""
    return derive_id("trf", organization, kind, key)


def usage_key(key: str, currency: str) -> str:
    """Return the idempotency key of one currency's transfers of a batch."""
    return f"{key}/{currency}"


def merge_postings(postings: Iterable[UsagePosting]) -> list[UsagePosting]:
    """Return one posting for each organization and currency, in their order.

    Those of the same ones are added up, and count for the latest time of them.

    Raises:
        ValueError: An amount is absurd: a programming error, for rating has bounded it.
    """
    merged: dict[tuple[str, str], UsagePosting] = {}
    for new in postings:
        place = (new.organization, new.currency)
        old = merged.get(place)
        if old is not None:
            new = UsagePosting(  # noqa: PLW2901 - the sum takes its place
                *place,
                old.charge_atto + new.charge_atto,
                old.cost_atto + new.cost_atto,
                max(old.at_us, new.at_us),
                old.reverses or new.reverses,
            )
        if max(abs(new.charge_atto), abs(new.cost_atto)) > MAX_POSTING_ATTO:
            message = "more was to be booked than a batch can cost"
            raise ValueError(message)
        merged[place] = new
    return [merged[place] for place in sorted(merged)]


def order_grants(grants: Iterable[Grant]) -> list[Grant]:
    """Return grants in the order in which they are used: priority, expiry, creation."""
    return sorted(
        grants,
        key=lambda grant: (
            grant.priority,
            grant.expires_at_us is None,
            grant.expires_at_us or 0,
            grant.created_at_us,
            grant.id,
        ),
    )


def take(
    amount_atto: int, grants: Iterable[Grant], rest: Account, at_us: int
) -> tuple[list[Taken], dict[str, int]]:
    """Decide what pays for an amount of usage: grants in their order, then an account.

    Args:
        amount_atto: More than 0.
        grants: Of the same organization and currency.
        rest: What pays for what no grant pays for.
        at_us: When it was used.

    Returns:
        What is taken from each lot, and what the grants that were used have left then.
    """
    taken: list[Taken] = []
    left: dict[str, int] = {}
    for grant in order_grants(grants):
        part = min(amount_atto, grant.remaining_atto)
        if part > 0 and grant.is_valid_at(at_us):
            taken.append(Taken(_lot_of(grant), part))
            left[grant.id] = grant.remaining_atto - part
            amount_atto -= part
    if amount_atto:
        taken.append(Taken(Lot(rest.id), amount_atto))
    return taken, left


def give_back(
    amount_atto: int, recorded: Iterable[Taken], grants: Mapping[str, Grant], rest: Account
) -> tuple[list[Taken], dict[str, int]]:
    """Decide what gets an amount back: the lots that were used last get it first.

    No grant gets more than was taken from it. What goes beyond all that is recorded goes to the
    account.

    Args:
        amount_atto: More than 0.
        recorded: What was taken and given back so far, the newest first. It is read as far as it
            is needed.
        grants: Those that are locked, by id: others get nothing.
        rest: See there.

    Returns:
        What each lot gets, below 0, and what the grants of them have left then.
    """
    given: list[Taken] = []
    left: dict[str, int] = {}
    back: defaultdict[Lot, int] = defaultdict(int)
    for one in recorded:
        # What was given back later was taken before, and is not there to be given back again.
        if one.amount_atto < 0:
            back[one.lot] -= one.amount_atto
            continue
        settled = min(one.amount_atto, back[one.lot])
        back[one.lot] -= settled
        part = min(one.amount_atto - settled, amount_atto)
        if one.lot.grant_id is not None:
            grant = grants.get(one.lot.grant_id)
            if grant is None:
                continue
            remaining = left.get(grant.id, grant.remaining_atto)
            part = min(part, grant.amount_atto - remaining)
            left[grant.id] = remaining + part
        if part:
            given.append(Taken(one.lot, -part))
            amount_atto -= part
        if not amount_atto:
            return given, left
    return [*given, Taken(Lot(rest.id), -amount_atto)], left


def _lot_of(grant: Grant) -> Lot:
    kind = GRANT_ACCOUNTS[grant.kind]
    return Lot(account_of(grant.organization, kind, grant.currency).id, grant.id)


def rest_account(organization: str, currency: str, mode: Mode) -> Account:
    """Return what pays for usage of an organization that no grant pays for."""
    return account_of(organization, REST_ACCOUNTS[mode], currency)


def wallet_accounts(organization: str, currency: str) -> list[Account]:
    """Return what is in a wallet: what was paid ahead, and presents."""
    kinds = sorted({*GRANT_ACCOUNTS.values()})
    return [account_of(organization, kind, currency) for kind in kinds]


def paying_accounts(organization: str, currency: str) -> list[Account]:
    """Return all that may pay for usage of an organization, by whatever terms it has."""
    kinds = sorted({*REST_ACCOUNTS.values(), *GRANT_ACCOUNTS.values()})
    return [account_of(organization, kind, currency) for kind in kinds]
