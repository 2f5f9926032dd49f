"""Repeated requests, on both kinds of database."""

import asyncio

import pytest
from sqlalchemy import func, select, update
from tests.fakes.organizations import ALL, NOW_US, OPERATOR, SECOND_US, actor

from penstock.access import idempotency
from penstock.access.errors import (
    IDEMPOTENCY_IN_FLIGHT,
    IDEMPOTENCY_KEY_INVALID,
    IDEMPOTENCY_MISMATCH,
)
from penstock.access.idempotency import Answer, IdempotencyLostError, Ticket
from penstock.access.model import Principal
from penstock.access.tables import IdempotencyKeys
from penstock.kit.errors import ErrorCode, PenstockError
from penstock.storage.database import Database
from penstock.tenancy import service as tenancy
from penstock.tenancy.tables import Organizations

SECRET = b"secret-of-these-tests"
REQUEST = b"POST /api/v1/organizations {}"
ANSWER = Answer(201, {"etag": '"1"'}, b'{"secret":"ps_live_shown_once"}')
SOMEBODY = Principal(
    kind="api_key",
    id="A" * 12,
    roles=frozenset({"org_admin"}),
    scopes=frozenset({"admin"}),
    organization_id="org_a",
)


async def _begin(
    database: Database,
    key: str = "key",
    *,
    request: bytes = REQUEST,
    at_us: int = NOW_US,
    principal: Principal = OPERATOR,
    secret: bytes = SECRET,
) -> Ticket | Answer | ErrorCode:
    try:
        async with database.write(ALL) as session:
            return await idempotency.begin(
                session, principal, secret, key=key, request=request, now_us=at_us
            )
    except PenstockError as error:
        return error.error


async def _finish(database: Database, ticket: Ticket, answer: Answer = ANSWER) -> None:
    async with database.write(ALL) as session:
        await tenancy.create_organization(session, actor(), f"made by {ticket.attempt}")
        await idempotency.finish(session, ticket, answer)


async def _ticket(database: Database, key: str = "key", *, at_us: int = NOW_US) -> Ticket:
    ticket = await _begin(database, key, at_us=at_us)
    assert isinstance(ticket, Ticket)
    return ticket


async def _count(database: Database) -> int:
    async with database.read(ALL) as session:
        return (await session.rows(select(func.count(Organizations.id))))[0][0]


async def test_a_repetition_gets_the_first_answer(database: Database) -> None:
    """The same request under the same key is answered, byte by byte, as the first was."""
    await _finish(database, await _ticket(database))
    for at_us in (NOW_US, NOW_US + 23 * 3_600 * SECOND_US):
        assert await _begin(database, at_us=at_us) == ANSWER
    assert await _count(database) == 1


async def test_another_request_is_refused(database: Database) -> None:
    """A key that was used for another request is refused, before and after the answer."""
    ticket = await _ticket(database)
    assert await _begin(database, request=REQUEST + b" ") is IDEMPOTENCY_MISMATCH
    await _finish(database, ticket)
    assert await _begin(database, request=REQUEST + b" ") is IDEMPOTENCY_MISMATCH


async def test_a_request_in_flight_is_not_begun_again(database: Database) -> None:
    """Of many at once one does the work, and the others are told to come again."""
    outcomes = await asyncio.gather(*(_begin(database) for _ in range(8)))
    assert sum(isinstance(outcome, Ticket) for outcome in outcomes) == 1
    assert sum(outcome is IDEMPOTENCY_IN_FLIGHT for outcome in outcomes) == 7


async def test_keys_of_others_are_other_keys(database: Database) -> None:
    """Nobody gets the answer of somebody else by using the same key."""
    await _finish(database, await _ticket(database))
    assert isinstance(await _begin(database, principal=SOMEBODY), Ticket)


async def test_who_died_is_taken_over_from(database: Database) -> None:
    """After its lease the work is begun anew, and the first one's comes too late as a whole."""
    first = await _ticket(database)
    lease_us = idempotency.LEASE_S * SECOND_US
    assert await _begin(database, at_us=NOW_US + lease_us - 1) is IDEMPOTENCY_IN_FLIGHT
    second = await _ticket(database, at_us=NOW_US + lease_us)
    with pytest.raises(IdempotencyLostError):
        await _finish(database, first)
    assert await _count(database) == 0
    await _finish(database, second)
    with pytest.raises(IdempotencyLostError):
        await _finish(database, first)
    assert await _count(database) == 1


async def test_a_failure_gives_the_key_back(database: Database) -> None:
    """After work that changed nothing the same request is begun anew; an answer stays."""
    ticket = await _ticket(database)
    async with database.write(ALL) as session:
        await idempotency.release(session, ticket)
    ticket = await _ticket(database)
    await _finish(database, ticket)
    async with database.write(ALL) as session:
        await idempotency.release(session, ticket)
    assert await _begin(database) == ANSWER


async def test_after_a_day_a_key_is_new(database: Database) -> None:
    """Answers are forgotten after 24 hours, whether somebody cleans up or not."""
    later = NOW_US + idempotency.KEEP_S * SECOND_US
    for key in ("a", "b"):
        await _finish(database, await _ticket(database, key))
    assert isinstance(await _begin(database, "a", at_us=later), Ticket)
    async with database.write(ALL) as session:
        assert await idempotency.forget_expired(session, later) == 1


async def test_answers_are_sealed(database: Database) -> None:
    """Neither the key nor the answer, with its secret, can be read from the table."""
    await _finish(database, await _ticket(database, "my-idempotency-key"))
    async with database.read(ALL) as session:
        rows = await session.rows(select(*IdempotencyKeys.__table__.columns))
    assert "shown_once" not in str(rows)
    assert "my-idempotency-key" not in str(rows)
    assert isinstance(await _begin(database, "my-idempotency-key", secret=b"other"), Ticket)


async def test_an_edited_answer_is_not_given(database: Database) -> None:
    """An answer that somebody edited is refused, and the work is not done again."""
    await _finish(database, await _ticket(database))
    async with database.write(ALL) as session:
        await session.change(update(IdempotencyKeys).values(answer=b"x" * 80))
    assert await _begin(database) is IDEMPOTENCY_MISMATCH


@pytest.mark.parametrize("key", ["", "a b", "\n", "é", "x" * 256, "\0"])
async def test_what_is_no_key_is_refused(database: Database, key: str) -> None:
    """An empty, long or unprintable idempotency key is an error of the caller."""
    assert await _begin(database, key) is IDEMPOTENCY_KEY_INVALID
