"""The control plane against its own OpenAPI document: requests that Schemathesis makes of it.

Nothing here names an operation. Each is called with data that its schemas allow and with data that
they do not; ids are real ones or made up.
"""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests
import schemathesis
from anyio.from_thread import BlockingPortal, start_blocking_portal
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import APIOperation, Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from tests.fakes.admin_objects import AdminDocument, create_objects
from tests.fakes.admin_rig import ADMIN_TOKEN, AdminRig, run_admin_rig
from tests.fakes.effort import tries

AnyOperation = APIOperation[Any, Any, Any, Any]
AnyCase = Case[AnyOperation]

EXAMPLES = tries(2)
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
SETTINGS = settings(
    max_examples=EXAMPLES,
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture
def portal() -> Iterator[BlockingPortal]:
    """An event loop of its own: Hypothesis calls from outside."""
    with start_blocking_portal() as portal:
        yield portal


@pytest.fixture
def rig(portal: BlockingPortal, sqlite_template: Path, tmp_path: Path) -> Iterator[AdminRig]:
    """A control plane without any objects."""
    with portal.wrap_async_context_manager(
        run_admin_rig(sqlite_template, tmp_path / "data")
    ) as rig:
        yield rig


def _exact(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document without the answer for statuses that it does not name, and security.

    Whoever calls here has a token: what is answered without one is tested beside the walls.
    """
    exact = copy.deepcopy(document)
    for entries in exact["paths"].values():
        for entry in entries.values():
            entry["responses"].pop("default")
            entry.pop("security", None)
    return exact


class Caller:
    """Sends cases and checks what is answered.

    Args:
        portal: Where the control plane runs.
        rig: The control plane.
        token: What the caller shows.
    """

    def __init__(self, portal: BlockingPortal, rig: AdminRig, token: str) -> None:
        """See the class."""
        self._portal = portal
        self._client = rig.client
        self._token = token

    def try_allowed(
        self, operation: AnyOperation, document: AdminDocument, ids: dict[str, str]
    ) -> None:
        """Send data that is allowed, half of it with real ids in path and body."""

        @SETTINGS
        @given(case=operation.as_strategy(GenerationMode.POSITIVE), is_real=st.booleans())
        def run(case: AnyCase, *, is_real: bool) -> None:
            if is_real:
                names = case.path_parameters
                case.path_parameters = {name: ids.get(name, names[name]) for name in names}
                case.body = document.fill(case.body, ids)
            case.validate_response(self._send(case), checks=CHECKS)

        run()

    def try_wrong(self, operation: AnyOperation) -> None:
        """Send data that is not allowed: it is refused."""

        @SETTINGS
        @given(case=operation.as_strategy(GenerationMode.NEGATIVE))
        def run(case: AnyCase) -> None:
            case.validate_response(self._send(case), checks=[*CHECKS, negative_data_rejection])

        run()

    def _send(self, case: AnyCase) -> httpx.Response:
        wanted = case.as_transport_kwargs(base_url="http://control")
        wanted["headers"]["authorization"] = f"Bearer {self._token}"
        prepared = requests.Request(**wanted).prepare()
        body: Any = prepared.body
        headers = [
            (name.encode("latin-1"), value if isinstance(value, bytes) else value.encode("latin-1"))
            for name, value in prepared.headers.items()
        ]
        request = self._client.build_request(
            str(prepared.method), str(prepared.url), headers=headers, content=body
        )
        return self._portal.call(self._client.send, request)


@pytest.mark.slow
@pytest.mark.parametrize("who", ["operator", "owner"])
def test_answers_are_as_the_document_says(
    portal: BlockingPortal, rig: AdminRig, openapi: dict[str, Any], who: str
) -> None:
    """Any data gets a declared status, type and form, never 5xx, and what is not allowed is 4xx."""
    content = _exact(openapi)
    document = AdminDocument(content)
    schema = schemathesis.openapi.from_dict(content)
    is_used_up = True
    for operation in document.operations:
        if is_used_up:
            objects = portal.call(create_objects, rig, document)
            token = ADMIN_TOKEN
            if who == "owner":
                token = portal.call(rig.create_token, objects.ids["project_id"], "org_owner")
            caller = Caller(portal, rig, token)
        # It may end what others are about to ask for.
        is_used_up = operation.is_change
        found = schema[operation.path][operation.method]
        caller.try_allowed(found, document, objects.ids)
        if _can_be_wrong(document.entry(operation)):
            caller.try_wrong(found)


def _can_be_wrong(entry: dict[str, Any]) -> bool:
    parameters = entry.get("parameters", [])
    return "requestBody" in entry or any(one["in"] != "path" for one in parameters)
