"""The control plane against its own OpenAPI document: requests that Schemathesis makes of it.

Nothing here names an operation. Each is called with data that its schemas allow and with data that
they do not; ids are real ones or made up.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
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


@dataclass
class Caller:
    """Who sends cases, and the objects that are theirs to ask for."""

    portal: BlockingPortal
    """Where the control plane runs."""
    rig: AdminRig
    """The control plane."""
    role: str | None
    """Of the key that is shown, for one project; without one it is the operator's token."""
    ids: dict[str, str] = field(default_factory=dict)
    _token: str = ""

    def renew(self, document: AdminDocument) -> None:
        """Create an object of each kind, and the key."""
        self.ids = self.portal.call(create_objects, self.rig, document).ids
        self._token = ADMIN_TOKEN
        if self.role is not None:
            create = self.rig.create_token
            self._token = self.portal.call(create, self.ids["project_id"], self.role)

    def send(self, case: AnyCase) -> httpx.Response:
        """Send a case."""
        wanted = case.as_transport_kwargs(base_url="http://control")
        wanted["headers"]["authorization"] = f"Bearer {self._token}"
        prepared = requests.Request(**wanted).prepare()
        body: Any = prepared.body
        headers = [
            (name.encode("latin-1"), value if isinstance(value, bytes) else value.encode("latin-1"))
            for name, value in prepared.headers.items()
        ]
        request = self.rig.client.build_request(
            str(prepared.method), str(prepared.url), headers=headers, content=body
        )
        return self.portal.call(self.rig.client.send, request)


def _try_allowed(operation: AnyOperation, document: AdminDocument, callers: list[Caller]) -> None:
    """Send data that is allowed, half of it with real ids in path and body."""

    @SETTINGS
    @given(case=operation.as_strategy(GenerationMode.POSITIVE), is_real=st.booleans())
    def run(case: AnyCase, *, is_real: bool) -> None:
        names, body = case.path_parameters, case.body
        for caller in callers:
            if is_real:
                case.path_parameters = {name: caller.ids.get(name, names[name]) for name in names}
                case.body = document.fill(body, caller.ids)
            case.validate_response(caller.send(case), checks=CHECKS)

    run()


def _try_wrong(operation: AnyOperation, callers: list[Caller]) -> None:
    """Send data that is not allowed: it is refused."""

    @SETTINGS
    @given(case=operation.as_strategy(GenerationMode.NEGATIVE))
    def run(case: AnyCase) -> None:
        for caller in callers:
            case.validate_response(caller.send(case), checks=[*CHECKS, negative_data_rejection])

    run()


@pytest.mark.slow
def test_answers_are_as_the_document_says(
    portal: BlockingPortal, rig: AdminRig, openapi: dict[str, Any]
) -> None:
    """Any data gets a declared status, type and form, never 5xx, and what is not allowed is 4xx."""
    content = _exact(openapi)
    document = AdminDocument(content)
    schema = schemathesis.openapi.from_dict(content)
    # The same data for both: to make it takes longer than to answer it.
    callers = [Caller(portal, rig, role) for role in (None, "org_owner")]
    is_used_up = True
    for operation in document.operations:
        if is_used_up:
            for caller in callers:
                caller.renew(document)
        # It may end what others are about to ask for.
        is_used_up = operation.is_change
        found = schema[operation.path][operation.method]
        _try_allowed(found, document, callers)
        if _can_be_wrong(document.entry(operation)):
            _try_wrong(found, callers)


def _can_be_wrong(entry: dict[str, Any]) -> bool:
    parameters = entry.get("parameters", [])
    return "requestBody" in entry or any(one["in"] != "path" for one in parameters)
