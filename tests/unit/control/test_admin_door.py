"""What endpoints of the admin API declare, and what their answers are made of."""

from dataclasses import dataclass

import pytest
from fastapi import APIRouter
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from penstock.access.model import NewKey
from penstock.access.schemas import KeyChangesBody, NewKeyBody
from penstock.audit.door import OPERATION, AdminRoute, operation
from penstock.audit.schemas import AnswerBody, PageBody, PageQuery
from penstock.kit.errors import PenstockError
from penstock.kit.moments import format_time, microseconds
from penstock.storage.errors import VERSION_CONFLICT
from penstock.storage.paging import Page
from penstock.tenancy.errors import NAME_TAKEN


@dataclass(frozen=True)
class _Thing:
    id: str
    created_at_us: int
    ended_at_us: int | None = None


class _ThingBody(AnswerBody):
    id: str
    created_at: str
    ended_at: str | None


class _ThingPage(PageBody[_ThingBody]):
    pass


def test_an_endpoint_without_operation_is_not_made() -> None:
    """An endpoint that names no operation stops the application from starting."""
    router = APIRouter(route_class=AdminRoute)
    with pytest.raises(ValueError, match="declares no operation"):
        router.add_api_route("/things", lambda: None)
    router.add_api_route("/things", lambda: None, **operation("things:list"))


def test_a_declaration_names_headers_and_errors() -> None:
    """A mutation of one object takes both headers and documents each of its errors."""
    declared = operation("things:update", NAME_TAKEN, is_change=True, is_of_object=True)
    assert declared["openapi_extra"][OPERATION] == "things:update"
    headers = [parameter["name"] for parameter in declared["openapi_extra"]["parameters"]]
    assert headers == ["Idempotency-Key", "If-Match"]
    assert list(declared["responses"]) == [404, 409, 412, 503]
    assert NAME_TAKEN.code in declared["responses"][409]["description"]
    assert VERSION_CONFLICT.code in declared["responses"][412]["description"]
    reading = operation("things:list")
    assert reading["openapi_extra"] == {OPERATION: "things:list"}


def test_answers_show_times_as_text() -> None:
    """Moments of a value are answered as ISO 8601, and those that never came as null."""
    body = _ThingBody.of(_Thing("thing", 1_781_524_800_000_001))
    assert body.created_at == "2026-06-15T12:00:00.000001Z"
    assert body.ended_at is None
    assert _ThingBody.of(_Thing("thing", 0), id="other").id == "other"


def test_pages_hold_bodies_of_their_kind() -> None:
    """A page is made of the bodies that its class names."""
    page = _ThingPage.of(Page([_Thing("one", 0), _Thing("two", 1)], "next"))
    assert [type(thing) for thing in page.data] == [_ThingBody, _ThingBody]
    assert page.next_cursor == "next"


def test_a_made_up_cursor_is_refused() -> None:
    """A cursor that no listing gave out is a problem of the caller's."""
    with pytest.raises(PenstockError):
        PageQuery(cursor="%").to_page()


def test_only_members_that_were_sent_change() -> None:
    """What was left out of a change is not in it, and null is a value."""
    assert KeyChangesBody.model_validate({}).to_changes() == {}
    changes = KeyChangesBody.model_validate({"expires_at": None, "allowed_cidrs": None})
    assert changes.to_changes() == {"expires_at_us": None, "allowed_cidrs": None}
    moment = KeyChangesBody.model_validate({"expires_at": "1970-01-01T00:00:01Z"})
    assert moment.to_changes() == {"expires_at_us": 1_000_000}


@pytest.mark.parametrize("name", ["name", "role", "scopes", "labels"])
def test_null_is_no_value_of_what_a_key_must_have(name: str) -> None:
    """A member that every key has cannot be changed to null."""
    with pytest.raises(ValidationError):
        KeyChangesBody.model_validate({name: None})


def test_a_new_key_has_the_defaults_of_the_room() -> None:
    """What a caller leaves out is what the access room says by itself."""
    body = NewKeyBody.model_validate({"project_id": "prj_1", "name": "shop"})
    assert body.to_new_key() == NewKey(name="shop")


@given(st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999))
def test_times_go_there_and_back(time_us: int) -> None:
    """A moment that was answered means the same when it is sent."""
    text = format_time(time_us)
    changes = KeyChangesBody.model_validate({"expires_at": text}).to_changes()
    assert changes == {"expires_at_us": time_us}
    assert microseconds(None) is None
