"""When prices may begin, and which are none."""

import dataclasses

import pytest
from tests.fakes.budget_rig import make_price

from penstock.rating.price_rules import (
    MAX_PRICE,
    NOTICE_S,
    earliest_start,
    find_price_fault,
    is_fixed,
    read_good,
)
from penstock.rating.rules import current_price

SECOND_US = 1_000_000
NOW_US = 1_000 * SECOND_US
OLD = make_price("small")
LATER = dataclasses.replace(OLD, valid_from_us=NOW_US + 60 * SECOND_US, output=OLD.output * 2)


def test_the_first_and_a_lower_one_begin_at_once() -> None:
    """At the second that is."""
    assert earliest_start(OLD, [], NOW_US + 5) == NOW_US
    lower = dataclasses.replace(OLD, output=OLD.output - 1)
    assert earliest_start(lower, [OLD], NOW_US + 5) == NOW_US
    assert earliest_start(OLD, [OLD, LATER], NOW_US) == NOW_US


@pytest.mark.parametrize("member", ["input", "cached_input", "output"])
def test_a_higher_one_is_known_before(member: str) -> None:
    """Whatever of it is higher, than what is now or than what is to come."""
    higher = dataclasses.replace(OLD, **{member: getattr(OLD, member) + 1})
    assert earliest_start(higher, [OLD], NOW_US) == NOW_US + NOTICE_S * SECOND_US
    cheap = dataclasses.replace(
        OLD, valid_from_us=NOW_US + SECOND_US, input=0, cached_input=0, output=0
    )
    again = dataclasses.replace(OLD, valid_from_us=NOW_US + 2 * SECOND_US)
    assert earliest_start(again, [OLD, cheap], NOW_US) == NOW_US + NOTICE_S * SECOND_US


def test_what_begins_soon_stays() -> None:
    """As does what has begun."""
    assert is_fixed(OLD, NOW_US)
    assert is_fixed(LATER, NOW_US)
    assert not is_fixed(LATER, NOW_US - NOTICE_S * SECOND_US)
    later, old = read_good([LATER, OLD])
    assert current_price([later, old], NOW_US) == old
    assert current_price([later], NOW_US) is None


def test_of_two_prices_that_begin_at_once_the_first_is_taken() -> None:
    """So one that is to be can be held against what is there: it stands before that."""
    twin = dataclasses.replace(OLD, input=OLD.input + 1)
    for pair in ([twin, OLD], [OLD, twin]):
        found = current_price(read_good(pair), NOW_US)
        assert found is not None
        assert found.price == pair[0]


@pytest.mark.parametrize(
    "members",
    [
        {"input": -1},
        {"output": MAX_PRICE + 1},
        {"currency": "eur"},
        {"alias": ""},
        {"valid_from_us": 5},
        {"input": None},
        {"alias": None},
    ],
)
def test_damaged_prices_are_none(members: dict[str, object]) -> None:
    """What something else wrote into the row has a fault."""
    assert find_price_fault(OLD) is None
    assert find_price_fault(dataclasses.replace(OLD, **members)) is not None  # type: ignore[arg-type]  # it is wrong on purpose
