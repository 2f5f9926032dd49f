"""HTTP endpoints of invoices: who they are from and to, drafts, and what becomes of them."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from penstock.access.errors import OPERATION_DENIED
from penstock.audit.door import operation
from penstock.billing import parties, reading, service
from penstock.billing.documents import said_of
from penstock.billing.einvoice import write_xml
from penstock.billing.errors import (
    BILLING_INVALID,
    EINVOICE_UNAVAILABLE,
    INVOICE_EARLY,
    INVOICE_EMPTY,
    INVOICE_EXISTS,
    INVOICE_STATE,
    INVOICE_UNBALANCED,
    PARTICULARS_MISSING,
)
from penstock.billing.model import Invoice
from penstock.billing.schemas import (
    InvoiceBody,
    InvoiceContentBody,
    InvoicePage,
    InvoicesQuery,
    IssuerBody,
    NewInvoiceBody,
    NewIssuerBody,
    NewRecipientBody,
    PaymentBody,
    RecipientBody,
)
from penstock.catalog.endpoints import CallParameter, create_router
from penstock.kit.errors import PenstockError
from penstock.storage.errors import OBJECT_UNKNOWN, PAGE_CURSOR_INVALID, VERSION_CONFLICT
from penstock.storage.sessions import WriteSession

_XML = "application/xml"
_CHANGE = (OPERATION_DENIED, INVOICE_STATE)
issuers = create_router("billing-issuer")
recipients = create_router("billing-recipients")


def create_billing_routers(default_currency: str, grace_s: int) -> list[APIRouter]:
    """Return the endpoints of invoices.

    Args:
        default_currency: Of organizations that have no billing terms of their own.
        grace_s: How long after the end of a month its usage is waited for.
    """
    invoices = create_router("invoices")
    _add_draft(invoices, default_currency)
    _add_reads(invoices)
    _add_changes(invoices, grace_s)
    return [issuers, recipients, invoices]


@issuers.get(
    "",
    summary="Show who sends the invoices",
    response_model=IssuerBody,
    **operation("billing_issuer:get", OBJECT_UNKNOWN),
)
async def get_billing_issuer(call: CallParameter) -> Response:
    """Show who sends the invoices."""
    call.check()
    async with call.read() as session:
        found = await parties.find_issuer(session)
    if found is None:
        raise PenstockError(OBJECT_UNKNOWN, "Nobody has said who sends the invoices.")
    return call.answer(IssuerBody.of(found))


@issuers.put(
    "",
    summary="Say who sends the invoices from now on",
    description="What was issued stays as it is.",
    response_model=IssuerBody,
    **operation(
        "billing_issuer:set", BILLING_INVALID, OPERATION_DENIED, VERSION_CONFLICT, is_change=True
    ),
)
async def set_billing_issuer(call: CallParameter, body: NewIssuerBody) -> Response:
    """Say who sends the invoices from now on."""

    async def work(session: WriteSession) -> IssuerBody:
        issuer = body.to_issuer()
        after = await parties.set_issuer(session, call.actor, issuer, call.expected_version)
        return IssuerBody.of(after)

    return await call.change(work)


@recipients.get(
    "/{organization_id}",
    summary="Show who gets the invoices of an organization",
    response_model=RecipientBody,
    **operation("billing_recipients:get", is_of_object=True),
)
async def get_billing_recipient(call: CallParameter, organization_id: str) -> Response:
    """Show who gets the invoices of an organization."""
    call.check(organization_id=organization_id)
    async with call.read() as session:
        found = await parties.find_recipient(session, organization_id)
    if found is None:
        raise PenstockError(OBJECT_UNKNOWN)
    return call.answer(RecipientBody.of(found))


@recipients.put(
    "/{organization_id}",
    summary="Say who gets the invoices of an organization from now on",
    description="What was issued stays as it is.",
    response_model=RecipientBody,
    **operation(
        "billing_recipients:set",
        BILLING_INVALID,
        OPERATION_DENIED,
        is_change=True,
        is_of_object=True,
    ),
)
async def set_billing_recipient(
    call: CallParameter, organization_id: str, body: NewRecipientBody
) -> Response:
    """Say who gets the invoices of an organization from now on."""

    async def work(session: WriteSession) -> RecipientBody:
        wanted = body.to_recipient(organization_id)
        after = await parties.set_recipient(session, call.actor, wanted, call.expected_version)
        return RecipientBody.of(after)

    return await call.change(work)


def _add_draft(invoices: APIRouter, default: str) -> None:
    @invoices.post(
        "",
        status_code=201,
        summary="Draft the invoice of an organization over a month",
        description="It takes nothing yet. Said again it is the same draft.",
        response_model=InvoiceBody,
        **operation(
            "invoices:create",
            BILLING_INVALID,
            INVOICE_EXISTS,
            OPERATION_DENIED,
            OBJECT_UNKNOWN,
            is_change=True,
        ),
    )
    async def create_invoice(call: CallParameter, body: NewInvoiceBody) -> Response:
        """Draft the invoice of an organization over a month."""

        async def work(session: WriteSession) -> InvoiceBody:
            draft = await service.draft_invoice(
                session,
                call.actor,
                organization_id=body.organization_id,
                month=body.month,
                currency=body.currency,
                default=default,
            )
            return InvoiceBody.of(draft)

        return await call.change(work, status=201)


def _add_reads(invoices: APIRouter) -> None:
    @invoices.get(
        "",
        summary="List invoices, credit notes and drafts, oldest first",
        response_model=InvoicePage,
        **operation("invoices:list", PAGE_CURSOR_INVALID),
    )
    async def list_invoices(
        call: CallParameter, query: Annotated[InvoicesQuery, Query()]
    ) -> Response:
        """List invoices, credit notes and drafts, oldest first."""
        call.check(organization_id=query.organization_id)
        async with call.read() as session:
            found = await reading.list_invoices(session, query.to_page(), query.organization_id)
        return call.answer(InvoicePage.of(found))

    @invoices.get(
        "/{invoice_id}",
        summary="Show an invoice and all that it says",
        response_model=InvoiceContentBody,
        **operation("invoices:get", is_of_object=True),
    )
    async def get_invoice(call: CallParameter, invoice_id: str) -> Response:
        """Show an invoice and all that it says."""
        async with call.read() as session:
            found = await reading.get_invoice(session, invoice_id)
            call.check(organization_id=found.organization_id)
        # A draft of a large month is read for long, beside what must be quick.
        async with call.read(is_long=found.content is None) as session:
            content = await reading.read_content(session, found)
        return call.answer(InvoiceContentBody.of(found, content=content))

    @invoices.get(
        "/{invoice_id}/xml",
        summary="Show an issued invoice as XML: EN 16931, in the syntax of UN/CEFACT (CII)",
        response_class=Response,
        **_xml_operation(),
    )
    async def get_invoice_xml(call: CallParameter, invoice_id: str) -> Response:
        """Show an issued invoice as XML."""
        async with call.read() as session:
            found = await reading.get_invoice(session, invoice_id)
            call.check(organization_id=found.organization_id)
        if found.content is None:
            raise PenstockError(EINVOICE_UNAVAILABLE, "A draft has no XML.")
        return Response(write_xml(said_of(found)), media_type=_XML)


def _xml_operation() -> dict[str, Any]:
    declared = operation("invoices:get", EINVOICE_UNAVAILABLE, is_of_object=True)
    schema = {"type": "string", "examples": ["<rsm:CrossIndustryInvoice/>"]}
    answer = {"description": "The invoice.", "content": {_XML: {"schema": schema}}}
    return {**declared, "responses": {**declared["responses"], 200: answer}}


def _add_changes(invoices: APIRouter, grace_s: int) -> None:
    @invoices.post(
        "/{invoice_id}/finalize",
        summary="Issue a draft: number, amounts and parties are fixed, and it is booked",
        description="It is over all charges before the end of its month that are on no other one.",
        response_model=InvoiceBody,
        **operation(
            "invoices:finalize",
            *_CHANGE,
            INVOICE_EARLY,
            INVOICE_EMPTY,
            INVOICE_UNBALANCED,
            PARTICULARS_MISSING,
            is_change=True,
            is_of_object=True,
        ),
    )
    async def finalize_invoice(call: CallParameter, invoice_id: str) -> Response:
        """Issue a draft."""

        async def finalize(session: WriteSession) -> Invoice:
            expected = call.expected_version
            return await service.finalize_invoice(
                session, call.actor, invoice_id, grace_s=grace_s, expected_version=expected
            )

        # A large month takes long to read, and nobody else has to wait for that.
        return await call.change(_answered(finalize), locks_itself=True)

    @invoices.post(
        "/{invoice_id}/void",
        summary="Take an invoice back that nobody paid, by a credit note",
        description="Answers with the credit note. What was used can be billed once more.",
        response_model=InvoiceBody,
        **operation(
            "invoices:void", *_CHANGE, PARTICULARS_MISSING, is_change=True, is_of_object=True
        ),
    )
    async def void_invoice(call: CallParameter, invoice_id: str) -> Response:
        """Take an invoice back that nobody paid."""

        async def void(session: WriteSession) -> Invoice:
            return await service.void_invoice(
                session, call.actor, invoice_id, expected_version=call.expected_version
            )

        return await call.change(_answered(void))

    @invoices.post(
        "/{invoice_id}/pay",
        summary="Book that an invoice was paid in full",
        description="Booked once for its `reference`; repeated, it answers like the first time.",
        response_model=InvoiceBody,
        **operation("invoices:pay", *_CHANGE, is_change=True, is_of_object=True),
    )
    async def pay_invoice(call: CallParameter, invoice_id: str, body: PaymentBody) -> Response:
        """Book that an invoice was paid in full."""

        async def pay(session: WriteSession) -> Invoice:
            return await service.pay_invoice(
                session,
                call.actor,
                invoice_id,
                reference=body.reference,
                expected_version=call.expected_version,
            )

        return await call.change(_answered(pay))


def _answered(
    work: Callable[[WriteSession], Awaitable[Invoice]],
) -> Callable[[WriteSession], Awaitable[InvoiceBody]]:
    async def answer(session: WriteSession) -> InvoiceBody:
        return InvoiceBody.of(await work(session))

    return answer
