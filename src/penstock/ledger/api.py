"""HTTP endpoints of the books: terms, credit, balances, statements, and whether all is right."""

from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter, Query, Response

from penstock.access.errors import OPERATION_DENIED
from penstock.audit.door import Call, operation
from penstock.catalog.endpoints import CallParameter, create_router
from penstock.kit.errors import PenstockError
from penstock.kit.moments import microseconds
from penstock.ledger import balances as balance_service
from penstock.ledger import credits as credit_service
from penstock.ledger.errors import LEDGER_INVALID, REFERENCE_USED
from penstock.ledger.months import find_month, month_of
from penstock.ledger.schemas import (
    BalancesBody,
    BalancesQuery,
    BooksBody,
    GrantBody,
    GrantPage,
    GrantsQuery,
    NewGrantBody,
    NewTermsBody,
    NewTopUpBody,
    StatementsBody,
    StatementsQuery,
    TermsBody,
    TopUpBody,
    ViolationBody,
    read_amount,
)
from penstock.ledger.verify_store import NAMES
from penstock.ledger.verifying import NO_CHECKS, Check, verify
from penstock.storage.errors import OBJECT_UNKNOWN, PAGE_CURSOR_INVALID
from penstock.storage.sessions import ReadSession, WriteSession
from penstock.tenancy.service import get_organization

_BALANCE_ERRORS = (LEDGER_INVALID, OBJECT_UNKNOWN)


def create_ledger_routers(
    default_currency: str, more_checks: Mapping[str, Check] = NO_CHECKS
) -> list[APIRouter]:
    """Return the endpoints of the books.

    Args:
        default_currency: Of organizations that have no billing terms of their own.
        more_checks: What else is verified.
    """
    default = default_currency
    return [_terms(default), *_credit(default), balances, statements, _books(more_checks)]


balances = create_router("balances")
statements = create_router("statements")


def _terms(default: str) -> APIRouter:
    router = create_router("billing-terms")

    @router.get(
        "/{organization_id}",
        summary="Show how an organization pays",
        response_model=TermsBody,
        **operation("terms:get", is_of_object=True),
    )
    async def get_terms(call: CallParameter, organization_id: str) -> Response:
        """Show how an organization pays."""
        call.check(organization_id=organization_id)
        async with call.read() as session:
            found = await credit_service.get_terms(session, organization_id, default)
        return call.answer(TermsBody.of(found))

    @router.put(
        "/{organization_id}",
        summary="Say how an organization pays from now on",
        description=(
            "What was booked stays where it is. While an organization is prepaid, its requests "
            "are refused when its wallet is empty."
        ),
        response_model=TermsBody,
        **operation(
            "terms:set", LEDGER_INVALID, OPERATION_DENIED, is_change=True, is_of_object=True
        ),
    )
    async def set_terms(call: CallParameter, organization_id: str, body: NewTermsBody) -> Response:
        """Say how an organization pays from now on."""

        async def work(session: WriteSession) -> TermsBody:
            after = await credit_service.set_terms(
                session,
                call.actor,
                organization_id,
                currency=body.currency,
                mode=body.mode,
                unpriced=body.unpriced,
                expected_version=call.expected_version,
            )
            return TermsBody.of(after)

        return await call.change(work)

    return router


def _credit(default: str) -> list[APIRouter]:
    top_ups, grants = create_router("top-ups"), create_router("credit-grants")

    @top_ups.post(
        "",
        status_code=201,
        summary="Put money into the prepaid wallet of an organization",
        description="Booked once for its `reference`; repeated, it answers like the first time.",
        response_model=TopUpBody,
        **operation(
            "topups:create",
            LEDGER_INVALID,
            REFERENCE_USED,
            OPERATION_DENIED,
            OBJECT_UNKNOWN,
            is_change=True,
        ),
    )
    async def create_top_up(call: CallParameter, body: NewTopUpBody) -> Response:
        """Put money into the prepaid wallet of an organization."""

        async def work(session: WriteSession) -> TopUpBody:
            top_up = await credit_service.top_up(
                session,
                call.actor,
                organization_id=body.organization_id,
                amount_atto=read_amount(body.amount),
                currency=body.currency,
                reference=body.reference,
                default=default,
            )
            return TopUpBody.of(top_up)

        return await call.change(work, status=201)

    @grants.post(
        "",
        status_code=201,
        summary="Give credit to an organization",
        description="It pays for usage from now on until its expiry, before anything else does.",
        response_model=GrantBody,
        **operation(
            "credits:create", LEDGER_INVALID, OPERATION_DENIED, OBJECT_UNKNOWN, is_change=True
        ),
    )
    async def create_credit_grant(call: CallParameter, body: NewGrantBody) -> Response:
        """Give credit to an organization."""

        async def work(session: WriteSession) -> GrantBody:
            new = body.to_new()
            grant = await credit_service.create_grant(session, call.actor, new, default=default)
            return GrantBody.of(grant)

        return await call.change(work, status=201)

    _add_grant_reads(grants)
    return [top_ups, grants]


def _add_grant_reads(grants: APIRouter) -> None:
    @grants.get(
        "",
        summary="List credit grants, oldest first",
        response_model=GrantPage,
        **operation("credits:list", PAGE_CURSOR_INVALID),
    )
    async def list_credit_grants(
        call: CallParameter, query: Annotated[GrantsQuery, Query()]
    ) -> Response:
        """List credit grants, oldest first."""
        call.check(organization_id=query.organization_id)
        async with call.read() as session:
            page = query.to_page()
            found = await credit_service.list_grants(session, page, query.organization_id)
        return call.answer(GrantPage.of(found))

    @grants.get(
        "/{credit_grant_id}",
        summary="Show a credit grant and what is left of it",
        response_model=GrantBody,
        **operation("credits:get", is_of_object=True),
    )
    async def get_credit_grant(call: CallParameter, credit_grant_id: str) -> Response:
        """Show a credit grant and what is left of it."""
        async with call.read() as session:
            found = await credit_service.get_grant(session, credit_grant_id)
            call.check(organization_id=found.organization)
        return call.answer(GrantBody.of(found))


@balances.get(
    "",
    summary="Show what an organization has and owes",
    response_model=BalancesBody,
    **operation("balances:read", *_BALANCE_ERRORS),
)
async def list_balances(call: CallParameter, query: Annotated[BalancesQuery, Query()]) -> Response:
    """Show what an organization has and owes."""
    as_of_us = microseconds(query.as_of)
    before_us = call.actor.at_us + 1 if as_of_us is None else as_of_us
    async with call.read() as session:
        owner = await _find_owner(call, session, query.organization_id)
        found = await balance_service.list_balances(session, owner, before_us)
    return call.answer(BalancesBody.build(owner, before_us, found))


@statements.get(
    "",
    summary="Show what happened to the balances of an organization in a month",
    response_model=StatementsBody,
    **operation("statements:read", *_BALANCE_ERRORS),
)
async def list_statements(
    call: CallParameter, query: Annotated[StatementsQuery, Query()]
) -> Response:
    """Show what happened to the balances of an organization in a month."""
    month = query.month or month_of(call.actor.at_us)
    period = find_month(month)
    async with call.read() as session:
        owner = await _find_owner(call, session, query.organization_id)
        if period is None:
            raise PenstockError(LEDGER_INVALID, "`month`: is none; write it like 2026-11.")
        found = await balance_service.list_statements(session, owner, *period)
    return call.answer(StatementsBody.build(owner, month, period, found))


def _books(more: Mapping[str, Check]) -> APIRouter:
    router = create_router("ledger")

    @router.post(
        "/verify",
        summary="Look for anything that the books should not have",
        description="Changes nothing. It reads all books, which takes a while.",
        response_model=BooksBody,
        **operation("ledger:verify"),
    )
    async def verify_ledger(call: CallParameter) -> Response:
        """Look for anything that the books should not have."""
        call.check()
        found = await verify(lambda: call.read(is_long=True), more)
        violations = [ViolationBody(check=one.check, subject=one.subject) for one in found]
        checks = [*NAMES, *more]
        return call.answer(BooksBody(is_right=not found, checks=checks, violations=violations))

    return router


async def _find_owner(call: Call, session: ReadSession, named: str | None) -> str:
    """Return whose books are meant and may be seen.

    The operator may name what nobody manages here: nodes that run from a file have names.
    """
    call.check(organization_id=named)
    owner = named or call.organization_id
    if owner is None:
        raise PenstockError(LEDGER_INVALID, "`organization_id`: say whose books are meant.")
    if call.organization_id is not None:
        await get_organization(session, owner)
    return owner
