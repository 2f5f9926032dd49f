"""Decisions of the ledger, without a database."""

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.ledger.drafts import draft_charge, draft_cost
from penstock.ledger.model import Grant, Lot, Taken, UsagePosting
from penstock.ledger.rules import (
    MAX_LINE_ATTO,
    MAX_POSTING_ATTO,
    account_of,
    give_back,
    merge_postings,
    order_grants,
    take,
    transfer_id_of,
)
from penstock.limits.prices import join_amount, split_amount

REST = account_of("acme", "accrued_usage", "EUR")
REVENUE = account_of("acme", "revenue", "EUR")


def make_grant(grant_id: str, remaining: int = 10, **members: Any) -> Grant:
    """Return a grant of 10 atto that is valid from 100 on."""
    values: dict[str, Any] = {
        "priority": 5,
        "kind": "promo",
        "expires_at_us": None,
        "created_at_us": 100,
        "amount_atto": 10,
        **members,
    }
    return Grant(
        id=grant_id, organization="acme", currency="EUR", remaining_atto=remaining, **values
    )


def lot(grant_id: str) -> Lot:
    """Return where a grant lies."""
    return Lot(account_of("acme", "wallet_promo", "EUR").id, grant_id)


@given(st.integers(-(10**36), 10**36), st.integers(-(10**36), 10**36))
def test_two_columns_add_up_like_the_amounts(one: int, other: int) -> None:
    """Sums of both columns say what the sum of the amounts is, also of negative ones."""
    columns = [split_amount(one), split_amount(other)]
    assert all(0 <= rest < 10**9 for _, rest in columns)
    nano, rest = (sum(column) for column in zip(*columns, strict=True))
    assert join_amount(nano, rest) == one + other


def test_grants_are_used_by_priority_then_expiry_then_age() -> None:
    """The lowest priority comes first, then what expires first, then what is oldest."""
    first = make_grant("c", priority=1)
    soon = make_grant("b", expires_at_us=900)
    late = make_grant("a", expires_at_us=901)
    old = make_grant("e", created_at_us=99)
    new = make_grant("d")
    assert order_grants([new, old, late, soon, first]) == [first, soon, late, old, new]


def test_what_grants_do_not_pay_the_account_pays() -> None:
    """Grants pay as far as they go, and the rest is taken from the account."""
    taken, left = take(25, [make_grant("b"), make_grant("a", 7)], REST, 200)
    assert taken == [Taken(lot("a"), 7), Taken(lot("b"), 10), Taken(Lot(REST.id), 8)]
    assert left == {"a": 0, "b": 0}


@pytest.mark.parametrize(("at_us", "pays"), [(99, False), (100, True), (199, True), (200, False)])
def test_a_grant_pays_from_its_creation_until_its_expiry(at_us: int, *, pays: bool) -> None:
    """A grant is there at the moment of its creation, and at that of its expiry it is not."""
    taken, _ = take(1, [make_grant("a", expires_at_us=200)], REST, at_us)
    assert taken == [Taken(lot("a") if pays else Lot(REST.id), 1)]


def test_what_was_used_last_is_given_back_first() -> None:
    """Given back is the account's part, then the grants', each as far as it was taken."""
    recorded = [Taken(Lot(REST.id), 3), Taken(lot("b"), 10), Taken(lot("a"), 7)]
    grants = {"a": make_grant("a", 3), "b": make_grant("b", 0)}
    given_back, left = give_back(15, recorded, grants, REST)
    assert given_back == [Taken(Lot(REST.id), -3), Taken(lot("b"), -10), Taken(lot("a"), -2)]
    assert left == {"a": 5, "b": 10}


def test_what_was_given_back_is_not_given_back_again() -> None:
    """An earlier giving back counts against what was taken from the same lot."""
    recorded = [Taken(lot("a"), -4), Taken(lot("a"), 6), Taken(Lot(REST.id), 9)]
    given_back, left = give_back(5, recorded, {"a": make_grant("a", 8)}, REST)
    assert given_back == [Taken(lot("a"), -2), Taken(Lot(REST.id), -3)]
    assert left == {"a": 10}


def test_more_than_was_ever_taken_goes_to_the_account() -> None:
    """What goes beyond everything that is recorded is given to the account."""
    given_back, left = give_back(5, [Taken(Lot(REST.id), 2)], {}, REST)
    assert given_back == [Taken(Lot(REST.id), -2), Taken(Lot(REST.id), -3)]
    assert left == {}


def test_a_grant_that_is_not_locked_gets_nothing() -> None:
    """What somebody else may be using meanwhile is passed over."""
    given_back, _ = give_back(5, [Taken(lot("new"), 5)], {}, REST)
    assert given_back == [Taken(Lot(REST.id), -5)]


@given(st.integers(-MAX_POSTING_ATTO, MAX_POSTING_ATTO).filter(bool))
def test_every_transfer_adds_up_to_nothing(amount: int) -> None:
    """Lines add up to 0 whatever was charged, and each fits into its columns."""
    posting = UsagePosting("acme", "EUR", amount, amount, 200)
    for draft in (
        draft_charge(posting, "k", [Taken(Lot(REST.id), amount)]),
        draft_cost(posting, "k"),
    ):
        assert sum(Fraction(line.amount_atto) for line in draft.lines) == 0
        assert all(abs(line.amount_atto) <= MAX_LINE_ATTO for line in draft.lines)
        assert sum(abs(line.amount_atto) for line in draft.lines) == 2 * abs(amount)


def test_revenue_is_a_credit() -> None:
    """Who pays is debited, and revenue is credited."""
    posting = UsagePosting("acme", "EUR", 5, 0, 200)
    draft = draft_charge(posting, "k", [Taken(Lot(REST.id), 5)])
    amounts = [(line.account, line.amount_atto) for line in draft.lines]
    assert amounts == [(REST, 5), (REVENUE, -5)]


def test_postings_of_one_organization_and_currency_become_one() -> None:
    """They are added up, count for their latest time, and are in one order."""
    merged = merge_postings(
        [
            UsagePosting("b", "EUR", 1, 0, 5),
            UsagePosting("a", "USD", 2, 3, 5),
            UsagePosting("b", "EUR", 4, 6, 7),
        ]
    )
    assert merged == [UsagePosting("a", "USD", 2, 3, 5), UsagePosting("b", "EUR", 5, 6, 7)]


def test_an_absurd_amount_is_not_booked() -> None:
    """What no batch of rated events can cost is refused, whichever sign it has."""
    for amount in (MAX_POSTING_ATTO + 1, -MAX_POSTING_ATTO - 1):
        with pytest.raises(ValueError, match="than a batch can cost"):
            merge_postings([UsagePosting("a", "EUR", amount, 0, 1)])


def test_ids_follow_from_what_they_name() -> None:
    """The same parts have one id, and no other parts have it, wherever they are divided."""
    assert transfer_id_of("a", "charge", "k") == transfer_id_of("a", "charge", "k")
    assert transfer_id_of("a", "charge", "k") != transfer_id_of("a", "cost", "k")
    assert account_of("a:1", "revenue", "EUR").id != account_of("a", "revenue", "EUR").id
    assert account_of("ab", "revenue", "c").id != account_of("a", "revenue", "bc").id
