"""The HTTP endpoints that upstreams, deployments, routes and aliases have in common."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

from fastapi import APIRouter, Depends, Path, Query, Response

from penstock.audit.door import AdminRoute, Call, get_call, operation
from penstock.audit.schemas import AnswerBody, PageBody, PageQuery
from penstock.catalog.errors import CATALOG_INVALID
from penstock.kit.errors import ErrorCode
from penstock.storage.errors import OBJECT_UNKNOWN, PAGE_CURSOR_INVALID
from penstock.storage.sessions import WriteSession

CallParameter: TypeAlias = Annotated[Call, Depends(get_call)]
Service: TypeAlias = Callable[..., Awaitable[Any]]


def create_router(plural: str) -> APIRouter:
    """Return the router of a kind of object."""
    return APIRouter(prefix=f"/api/v1/{plural}", tags=[plural], route_class=AdminRoute)


@dataclass(frozen=True, slots=True, kw_only=True)
class Noun:
    """A kind of object, as far as its endpoints go.

    Types that FastAPI is to read from parameters are members here; annotations of the endpoints
    name them, which a type checker cannot follow.
    """

    router: APIRouter
    name: str
    """As in `upstream_id`."""
    plural: str
    """As in `upstreams:list`."""
    body: type[AnswerBody]
    invalid: ErrorCode = CATALOG_INVALID
    """What is raised when an object may not be as it is to be."""

    def add_reads(
        self, page: type[PageBody[Any]], query: type[PageQuery], *, get: Service, find: Service
    ) -> None:
        """Add the endpoints that list and show.

        Args:
            page: What a listing is answered with.
            query: Its filters are the arguments of `find` by name.
            get: Returns an object.
            find: Returns a page of objects.
        """

        @self.router.get(
            "",
            operation_id=f"list_{self.plural}",
            summary=f"List {self.plural}, oldest first",
            response_model=page,
            **operation(f"{self.plural}:list", PAGE_CURSOR_INVALID),
        )
        async def list_objects(
            call: CallParameter,
            asked: Annotated[query, Query()],  # type: ignore[valid-type]  # see the class
        ) -> Response:
            wanted: PageQuery = asked
            filters = wanted.model_dump(exclude=set(PageQuery.model_fields))
            async with call.read() as session:
                found = await find(session, wanted.to_page(), **filters)
            return call.answer(page.of(found))

        @self.router.get(
            f"/{{{self.name}_id}}",
            operation_id=f"get_{self.name}",
            summary=f"Show one of the {self.plural}",
            response_model=self.body,
            **operation(f"{self.plural}:get", is_of_object=True),
        )
        async def get_object(
            call: CallParameter, object_id: Annotated[str, Path(alias=f"{self.name}_id")]
        ) -> Response:
            async with call.read() as session:
                found = await get(session, object_id)
            return call.answer(self.body.of(found))

    def add_create(self, new: type[Any], create: Service, *errors: ErrorCode) -> None:
        """Add the endpoint that creates.

        Args:
            new: Its `to_new` is what `create` takes.
            create: Returns a new object.
            *errors: What it raises, besides what all kinds do.
        """

        @self.router.post(
            "",
            status_code=201,
            operation_id=f"create_{self.name}",
            summary=f"Create one of the {self.plural}",
            response_model=self.body,
            **operation(
                f"{self.plural}:create", self.invalid, OBJECT_UNKNOWN, *errors, is_change=True
            ),
        )
        async def create_object(call: CallParameter, body: new) -> Response:  # type: ignore[valid-type]  # see the class
            wanted: Any = body

            async def work(session: WriteSession) -> AnswerBody:
                return self.body.of(await create(session, call.actor, wanted.to_new()))

            return await call.change(work, status=201)

    def add_update(self, changes: type[Any], update: Service, *errors: ErrorCode) -> None:
        """Add the endpoint that changes.

        Args:
            changes: Its `to_changes` is what `update` takes.
            update: Returns the object as it is then.
            *errors: What it raises, besides what all kinds do.
        """

        @self.router.patch(
            f"/{{{self.name}_id}}",
            operation_id=f"update_{self.name}",
            summary=f"Change one of the {self.plural}",
            description="Its name stays: others know it by that.",
            response_model=self.body,
            **operation(
                f"{self.plural}:update",
                self.invalid,
                *errors,
                is_change=True,
                is_of_object=True,
            ),
        )
        async def update_object(
            call: CallParameter,
            object_id: Annotated[str, Path(alias=f"{self.name}_id")],
            body: changes,  # type: ignore[valid-type]  # see the class
        ) -> Response:
            wanted: Any = body

            async def work(session: WriteSession) -> AnswerBody:
                updated = await update(
                    session,
                    call.actor,
                    object_id,
                    wanted.to_changes(),
                    expected_version=call.expected_version,
                )
                return self.body.of(updated)

            return await call.change(work)

    def add_delete(self, delete: Service, *errors: ErrorCode) -> None:
        """Add the endpoint that deletes.

        Args:
            delete: Removes an object.
            *errors: What it raises, besides what all kinds do.
        """

        @self.router.delete(
            f"/{{{self.name}_id}}",
            status_code=204,
            response_class=Response,
            operation_id=f"delete_{self.name}",
            summary=f"Delete one of the {self.plural} for good",
            **operation(f"{self.plural}:delete", *errors, is_change=True, is_of_object=True),
        )
        async def delete_object(
            call: CallParameter, object_id: Annotated[str, Path(alias=f"{self.name}_id")]
        ) -> Response:
            async def work(session: WriteSession) -> None:
                await delete(session, call.actor, object_id, expected_version=call.expected_version)

            return await call.change(work)
