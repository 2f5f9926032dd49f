"""One request of the admin API: what its caller may do, and doing it once."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Final

from fastapi import Response
from pydantic import BaseModel

from penstock.access.authorization import find_refusal, scope_of
from penstock.access.errors import GRANT_EXCEEDED, IDEMPOTENCY_IN_FLIGHT, OPERATION_DENIED
from penstock.access.idempotency import (
    LEASE_S,
    Answer,
    IdempotencyLostError,
    Ticket,
    begin,
    finish,
    release,
)
from penstock.access.matrix import may_grant
from penstock.access.model import Principal
from penstock.access.peppers import Peppers
from penstock.audit.door import Prepare, Work
from penstock.audit.model import Actor, Entry
from penstock.audit.service import record_denied
from penstock.control import log_events
from penstock.kit.errors import PenstockError
from penstock.storage.database import Database
from penstock.storage.errors import DatabaseUnavailableError
from penstock.storage.sessions import ReadSession

REPLAYED: Final = "idempotency-replayed"
"""Header of an answer that was given before."""

LEASE_S_OF: Final = {"invoices:finalize": 3_600}
"""Of operations that take long: repeated in that time they are in flight, and not begun anew."""

_DENIALS = (OPERATION_DENIED, GRANT_EXCEEDED)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminCall:
    """See `audit.door.Call`."""

    database: Database
    peppers: Peppers = field(repr=False)
    principal: Principal
    actor: Actor
    operation: str
    """Its name in `access.matrix`."""
    resource_id: str
    """What the path names, for entries about denials."""
    expected_version: int | None
    idempotency_key: str | None = field(repr=False)
    idempotency_secret: bytes = field(repr=False)
    fingerprint: Callable[[], bytes] = field(repr=False)
    """Returns method, path and body: what makes a request the same one."""

    @property
    def organization_id(self) -> str | None:
        """The only organization that the caller can touch."""
        return self.principal.organization_id

    @property
    def project_id(self) -> str | None:
        """The only project that the caller can touch."""
        return self.principal.project_id

    def check(self, *, organization_id: str | None = None, project_id: str | None = None) -> None:
        """Check the operation on an object of that owner; see `audit.door.Call`."""
        self._check(self.operation, organization_id, project_id)

    def check_also(self, operation: str) -> None:
        """Check that the caller may do another operation, too; see `audit.door.Call`."""
        self._check(operation, None, self.project_id)

    def narrow(self, organization_id: str | None, project_id: str | None) -> str | None:
        """Check the operation on all that is in a place; see `audit.door.Call`."""
        project_id = project_id or self.project_id
        self.check(organization_id=organization_id, project_id=project_id)
        return project_id

    def _check(self, operation: str, organization_id: str | None, project_id: str | None) -> None:
        refusal = find_refusal(
            self.principal, operation, organization_id=organization_id, project_id=project_id
        )
        if refusal is not None:
            raise PenstockError(refusal.error, refusal.detail)

    def check_grant(self, *roles: str) -> None:
        """Check that the caller has all rights of these roles; see `audit.door.Call`."""
        for role in roles:
            if not may_grant(self.principal.roles, role):
                raise PenstockError(GRANT_EXCEEDED)

    def read(self, *, is_long: bool = False) -> AbstractAsyncContextManager[ReadSession]:
        """Hand out a session that shows what the caller may see; `is_long` as `Database.read`."""
        return self.database.read(scope_of(self.principal), is_long=is_long)

    def answer(self, body: BaseModel) -> Response:
        """Answer with an object or a listing."""
        return _respond(_build_answer(body, 200))

    async def change(
        self,
        work: Work,
        *,
        status: int = 200,
        prepare: Prepare | None = None,
        locks_itself: bool = False,
    ) -> Response:
        """Do a mutation once for its idempotency key; see `audit.door.Call`.

        Only an answer of success is kept: after a refusal the same key is a new try.
        """
        is_alone = not locks_itself
        try:
            if self.idempotency_key is None:
                if prepare is not None:
                    await prepare()
                scope = scope_of(self.principal)
                async with self.database.write(scope, is_alone=is_alone) as session:
                    body = await work(session)
                # Only now: others waited for the end of this transaction.
                return _respond(_build_answer(body, status))
            return await self._change_once(
                self.idempotency_key, work, status, prepare, is_alone=is_alone
            )
        except PenstockError as error:
            if error.error in _DENIALS:
                await self.record_denied(str(error))
            raise

    async def rehearse(self, work: Work) -> Response:
        """Do a mutation, answer with what came of it, and undo it; see `audit.door.Call`."""
        try:
            async with self.database.write(scope_of(self.principal)) as session:
                raise _UndoneError(_build_answer(await work(session), 200))  # noqa: TRY301 - it undoes
        except _UndoneError as undone:
            return _respond(undone.answer)

    async def record_denied(self, detail: str) -> None:
        """Put into the audit log that the caller was not allowed to do this."""
        kind = self.operation.partition(":")[0].removesuffix("s")
        verb = self.operation.partition(":")[2]
        entry = Entry(
            actor=self.actor,
            action=f"{kind}.{verb}",
            resource_kind=kind,
            resource_id=self.resource_id,
            organization_id=self.principal.organization_id,
            outcome="denied",
            detail=detail,
        )
        await record_denied(self.database, entry)

    async def _change_once(
        self, key: str, work: Work, status: int, prepare: Prepare | None, *, is_alone: bool
    ) -> Response:
        scope = scope_of(self.principal)
        async with self.database.write(scope) as session:
            ticket = await begin(
                session,
                self.principal,
                self.idempotency_secret,
                key=key,
                request=self.fingerprint(),
                now_us=self.actor.at_us,
                lease_s=LEASE_S_OF.get(self.operation, LEASE_S),
            )
        if isinstance(ticket, Answer):
            return _respond(ticket, is_replayed=True)
        try:
            if prepare is not None:
                await prepare()
            async with self.database.write(scope, is_alone=is_alone) as session:
                answer = _build_answer(await work(session), status)
                await finish(session, ticket, answer)
        except IdempotencyLostError:
            raise PenstockError(IDEMPOTENCY_IN_FLIGHT) from None
        except PenstockError:
            await self._release(ticket)
            raise
        return _respond(answer)

    async def _release(self, ticket: Ticket) -> None:
        try:
            async with self.database.write(scope_of(self.principal)) as session:
                await release(session, ticket)
        except DatabaseUnavailableError:
            # The lease ends by itself; what the caller is to know is the first failure.
            log_events.IN_FLIGHT_LEFT.log()


class _UndoneError(Exception):
    """Ends a transaction that was only a rehearsal, whose answer it holds."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer


def _build_answer(body: BaseModel | None, status: int) -> Answer:
    if body is None:
        return Answer(204, {}, b"")
    version = getattr(body, "version", None)
    headers = {} if version is None else {"etag": f'"{version}"'}
    return Answer(status, headers, body.model_dump_json().encode())


def _respond(answer: Answer, *, is_replayed: bool = False) -> Response:
    headers = answer.headers | ({REPLAYED: "true"} if is_replayed else {})
    media_type = "application/json" if answer.body else None
    return Response(answer.body, answer.status, headers, media_type)
