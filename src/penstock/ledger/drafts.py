"""Transfers that are to be: which accounts each kind of them debits and credits. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from penstock.ledger.model import (
    GRANT_ACCOUNTS,
    AccountKind,
    BillPosting,
    Draft,
    Grant,
    Line,
    Taken,
    TopUp,
    TransferKind,
    UsageKind,
    UsagePosting,
)
from penstock.ledger.rules import (
    MAX_LINE_ATTO,
    account_of,
    paying_accounts,
    transfer_id_of,
    usage_key,
)
from penstock.limits.wallet_model import WalletMove

_WALLETS = frozenset(GRANT_ACCOUNTS.values())


def moves_of(drafts: Iterable[Draft]) -> list[WalletMove]:
    """Return what transfers put into wallets and take from them; grants lie in them, too."""
    moves = []
    for draft in drafts:
        # A wallet is a debt of ours: a credit puts something into it.
        amount = -sum(line.amount_atto for line in draft.lines if line.account.kind in _WALLETS)
        if amount:
            moves.append(WalletMove(draft.organization, draft.currency, amount, draft.id))
    return moves


def draft_charge(posting: UsagePosting, key: str, taken: Sequence[Taken]) -> Draft:
    """Return the transfer of what an organization was charged: who pays / revenue."""
    payers = {one.id: one for one in paying_accounts(posting.organization, posting.currency)}
    lines = [Line(payers[one.lot.account_id], one.amount_atto, one.lot.grant_id) for one in taken]
    revenue = account_of(posting.organization, "revenue", posting.currency)
    return _draft(posting, "charge", key, [*lines, Line(revenue, -posting.charge_atto)])


def draft_cost(posting: UsagePosting, key: str) -> Draft:
    """Return the transfer of what usage cost us: cost of goods / what providers get."""
    owner = (posting.organization, posting.currency)
    cost = account_of(owner[0], "provider_cogs", owner[1])
    payable = account_of(owner[0], "provider_payable", owner[1])
    lines = [Line(cost, posting.cost_atto), Line(payable, -posting.cost_atto)]
    return _draft(posting, "cost", key, lines)


def _draft(posting: UsagePosting, kind: UsageKind, key: str, lines: Iterable[Line]) -> Draft:
    key = usage_key(key, posting.currency)
    return Draft(
        id=transfer_id_of(posting.organization, kind, key),
        organization=posting.organization,
        kind=kind,
        idempotency_key=key,
        currency=posting.currency,
        booked_at_us=posting.at_us,
        lines=tuple(part for line in lines for part in _split_line(line)),
        reverses_id=posting.reverses if kind == "charge" else None,
    )


def _split_line(line: Line) -> Iterator[Line]:
    left = line.amount_atto
    while abs(left) > MAX_LINE_ATTO:
        part = MAX_LINE_ATTO if left > 0 else -MAX_LINE_ATTO
        yield Line(line.account, part, line.grant_id)
        left -= part
    yield Line(line.account, left, line.grant_id)


def draft_grant(grant: Grant, key: str) -> Draft:
    """Return the transfer that gives credit: what it costs us, or what was paid / the wallet."""
    source: AccountKind = "writeoff" if grant.kind == "promo" else "payment_clearing"
    wallet = account_of(grant.organization, GRANT_ACCOUNTS[grant.kind], grant.currency)
    return Draft(
        id=transfer_id_of(grant.organization, "grant", key),
        organization=grant.organization,
        kind="grant",
        idempotency_key=key,
        currency=grant.currency,
        booked_at_us=grant.created_at_us,
        lines=(
            Line(account_of(grant.organization, source, grant.currency), grant.amount_atto),
            Line(wallet, -grant.amount_atto, grant.id),
        ),
    )


def draft_top_up(top_up: TopUp) -> Draft:
    """Return the transfer that fills a wallet: what was paid / the wallet."""
    owner = (top_up.organization_id, top_up.currency)
    paid = account_of(owner[0], "payment_clearing", owner[1])
    wallet = account_of(owner[0], "wallet_prepaid", owner[1])
    return Draft(
        id=top_up.id,
        organization=top_up.organization_id,
        kind="topup",
        idempotency_key=top_up.reference,
        currency=top_up.currency,
        booked_at_us=top_up.created_at_us,
        lines=(Line(paid, top_up.amount_atto), Line(wallet, -top_up.amount_atto)),
    )


def draft_expiry(grant: Grant, recorded_at_us: int) -> Draft:
    """Return the transfer that ends a grant, at its expiry: the wallet / breakage.

    A grant may end more than once: what is given back to it later ends, too.

    Args:
        grant: Has an expiry, and something left.
        recorded_at_us: The time.
    """
    key = f"{grant.id}/{recorded_at_us}"
    wallet = account_of(grant.organization, GRANT_ACCOUNTS[grant.kind], grant.currency)
    breakage = account_of(grant.organization, "breakage", grant.currency)
    return Draft(
        id=transfer_id_of(grant.organization, "expiry", key),
        organization=grant.organization,
        kind="expiry",
        idempotency_key=key,
        currency=grant.currency,
        booked_at_us=grant.expires_at_us or 0,
        lines=(
            Line(wallet, grant.remaining_atto, grant.id),
            Line(breakage, -grant.remaining_atto),
        ),
    )


def draft_bill(posting: BillPosting, now_us: int) -> Draft:
    """Return the transfer of an invoice: who owes it / what was used, and the tax.

    Rounding is what the amounts on paper differ from exact ones by. It has no lines when nothing
    is to be booked.
    """
    owner = (posting.organization, posting.currency)
    amounts: dict[AccountKind, int] = {
        "receivable": posting.gross_atto,
        "accrued_usage": -posting.accrued_atto,
        "tax_payable": -posting.tax_atto,
        "rounding": -posting.rounding_atto,
    }
    return _draft_of_bill("invoice", owner, posting.key, amounts, now_us)


def draft_payment(owner: tuple[str, str], key: str, gross_atto: int, now_us: int) -> Draft:
    """Return the transfer of an invoice that is paid: what came in / who owed it.

    Args:
        owner: Organization and currency.
        key: Id of the invoice.
        gross_atto: More than 0.
        now_us: The time.
    """
    amounts: dict[AccountKind, int] = {"payment_clearing": gross_atto, "receivable": -gross_atto}
    return _draft_of_bill("payment", owner, key, amounts, now_us)


def _draft_of_bill(
    kind: TransferKind,
    owner: tuple[str, str],
    key: str,
    amounts: Mapping[AccountKind, int],
    now_us: int,
) -> Draft:
    organization, currency = owner
    lines = [
        Line(account_of(organization, account, currency), amount)
        for account, amount in amounts.items()
        if amount
    ]
    return Draft(
        id=transfer_id_of(organization, kind, key),
        organization=organization,
        kind=kind,
        idempotency_key=key,
        currency=currency,
        booked_at_us=now_us,
        lines=tuple(part for line in lines for part in _split_line(line)),
    )


def draft_credit_note(
    owner: tuple[str, str], key: str, reverses_id: str, lines: Iterable[Line], now_us: int
) -> Draft:
    """Return the transfer that takes that of an invoice back: its lines the other way round.

    Args:
        owner: Organization and currency.
        key: Id of the credit note.
        reverses_id: The invoice's transfer.
        lines: Of it.
        now_us: The time.
    """
    organization, currency = owner
    return Draft(
        id=transfer_id_of(organization, "credit_note", key),
        organization=organization,
        kind="credit_note",
        idempotency_key=key,
        currency=currency,
        booked_at_us=now_us,
        lines=tuple(Line(line.account, -line.amount_atto) for line in lines),
        reverses_id=reverses_id,
    )
