"""The OpenAPI document: every body has an example that fits, and every error answer is declared."""

from typing import Any

import jsonschema_rs
from tests.fakes.admin_rig import METHODS, OPERATION
from tests.house.sources import expect_none

PROBLEM = "application/problem+json"
BINARY = "application/msgpack"


def _operations(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{method} {path}", entry)
        for path, entries in document["paths"].items()
        for method, entry in entries.items()
        if method in METHODS
    ]


def _media(entry: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """Return place, type and description of each body that goes in or out."""
    bodies = {"request": entry.get("requestBody", {}), **entry["responses"]}
    return [
        (place, kind, media)
        for place, body in bodies.items()
        for kind, media in body.get("content", {}).items()
    ]


def _schema(document: dict[str, Any], media: dict[str, Any]) -> dict[str, Any]:
    schema: dict[str, Any] = media["schema"].get("anyOf", [media["schema"]])[0]
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def test_the_document_is_openapi_3_1(document: dict[str, Any]) -> None:
    """It says so, and each of its schemas is one of JSON Schema 2020-12."""
    assert document["openapi"].startswith("3.1.")
    for schema in document["components"]["schemas"].values():
        jsonschema_rs.meta.validate(schema)


def test_every_body_has_an_example(document: dict[str, Any]) -> None:
    """Every body that goes in or out has an example in its schema: see `audit.schemas.example`."""
    expect_none(
        [
            f"{name}: {place} ({kind})"
            for name, entry in _operations(document)
            for place, kind, media in _media(entry)
            if kind != BINARY and not _schema(document, media).get("examples")
        ]
    )


def test_examples_fit(document: dict[str, Any]) -> None:
    """Every example has the form that it is an example of."""
    wrong = []
    for name, schema in document["components"]["schemas"].items():
        whole = {"components": document["components"], **schema}
        for example in schema.get("examples", []):
            wrong += [
                f"{name}: {error.message}"
                for error in jsonschema_rs.iter_errors(whole, example, validate_formats=True)
            ]
    expect_none(wrong)


def test_every_error_answer_is_declared(document: dict[str, Any]) -> None:
    """Every operation says each status that its door answers with, and all errors have one form."""
    missing = []
    for name, entry in _operations(document):
        wanted = set()
        if "security" in entry:
            wanted |= {"401", "503"}
        if OPERATION in entry:
            wanted |= {"403", "413"}
        headers = {parameter["name"] for parameter in entry.get("parameters", [])}
        if "Idempotency-Key" in headers:
            wanted |= {"400", "409", "422"}
        if "If-Match" in headers:
            wanted |= {"404", "412"}
        missing += [f"{name}: {status}" for status in wanted - entry["responses"].keys()]
        missing += [
            f"{name}: {status} is {kind}"
            for status, kind, _ in _media(entry)
            if (status[0] in "45d") != (kind == PROBLEM)
        ]
    expect_none(missing)


def test_every_error_answer_names_its_codes(document: dict[str, Any]) -> None:
    """What an operation says of an error status begins with a code that is declared."""
    expect_none(
        [
            f"{name}: {status}"
            for name, entry in _operations(document)
            for status, answer in entry["responses"].items()
            if status[0] in "45" and not answer["description"].startswith("`err:control:")
        ]
    )
