"""The OpenAPI document: what the endpoints say, and what the door in front of them may answer."""

from typing import Any

from fastapi import FastAPI

from penstock.access.errors import (
    IDEMPOTENCY_IN_FLIGHT,
    IDEMPOTENCY_KEY_INVALID,
    IDEMPOTENCY_MISMATCH,
    KEY_REFUSED,
    OPERATION_DENIED,
)
from penstock.audit.door import OPERATION, problem_responses
from penstock.control.errors import (
    BODY_TOO_LARGE,
    IF_MATCH_INVALID,
    REQUEST_INVALID,
    TOKEN_MISSING,
    TOKEN_WRONG,
)
from penstock.control.problems import describe_problems
from penstock.kit.errors import ErrorCode
from penstock.storage.errors import OBJECT_UNKNOWN


class ControlApp(FastAPI):
    """FastAPI whose OpenAPI document knows our errors and their form."""

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document, made once."""
        if self.openapi_schema is None:
            document = super().openapi()
            schemas = document["components"]["schemas"]
            describe_problems(schemas)
            for schema in schemas.values():
                for example in schema.get("examples", []):
                    _restore_nulls(example, schema, schemas)
            for entries in document["paths"].values():
                for entry in entries.values():
                    _add_problems(entry)
        return super().openapi()


def _restore_nulls(example: Any, schema: dict[str, Any], schemas: dict[str, Any]) -> None:
    """Put back what FastAPI strips from examples: members that are there and null."""
    if "$ref" in schema:
        schema = schemas[schema["$ref"].rpartition("/")[2]]
    if isinstance(example, list):
        for item in example:
            _restore_nulls(item, schema.get("items", {}), schemas)
    elif isinstance(example, dict):
        for name, member in schema.get("properties", {}).items():
            if name in schema.get("required", ()):
                _restore_nulls(example.setdefault(name, None), member, schemas)


def _add_problems(entry: dict[str, Any]) -> None:
    """Add to an operation what it is answered with before its endpoint sees the request."""
    answers: dict[str, Any] = entry["responses"]
    for problem in _find_problems(entry):
        ((status, answer),) = problem_responses(problem).items()
        known = answers.setdefault(str(status), answer)
        if problem.code not in known["description"]:
            known["description"] += f"\n\n{answer['description']}"


def _find_problems(entry: dict[str, Any]) -> list[ErrorCode]:
    problems: list[ErrorCode] = []
    parameters = entry.get("parameters", [])
    headers = {one["name"] for one in parameters if one["in"] == "header"}
    filters = {one["name"] for one in parameters if one["in"] == "query"}
    if "security" in entry:
        problems += [TOKEN_MISSING, TOKEN_WRONG]
    if OPERATION in entry:
        problems += [KEY_REFUSED, OPERATION_DENIED, BODY_TOO_LARGE]
    if "requestBody" in entry or filters:
        problems.append(REQUEST_INVALID)
    if OPERATION in entry and any(name.endswith("_id") for name in filters):
        # Of another organization or project, if the caller is confined to one.
        problems.append(OBJECT_UNKNOWN)
    if "If-Match" in headers:
        problems.append(IF_MATCH_INVALID)
    if "Idempotency-Key" in headers:
        problems += [IDEMPOTENCY_KEY_INVALID, IDEMPOTENCY_IN_FLIGHT, IDEMPOTENCY_MISMATCH]
    return problems
