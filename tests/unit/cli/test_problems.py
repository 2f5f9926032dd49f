"""What control answers when it refuses, in words."""

import importlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

import penstock
from penstock.cli.problems import read_problem
from penstock.kit.errors import ErrorCode

PACKAGE = Path(penstock.__file__).parent


def _codes() -> Iterator[ErrorCode]:
    for path in sorted(PACKAGE.rglob("errors.py")):
        name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        for value in vars(importlib.import_module(name)).values():
            if isinstance(value, ErrorCode) and value.code.startswith("err:control:"):
                yield value


@pytest.mark.parametrize("error", list(dict.fromkeys(_codes())), ids=lambda error: error.code)
def test_every_code_of_control_says_what_to_do(error: ErrorCode) -> None:
    """Whatever code control answers with, the command line tells the advice declared for it."""
    content = {"code": error.code, "detail": "It is so."}
    request = httpx.Request("POST", "http://control/api/v1/keys")
    problem = read_problem(httpx.Response(error.status, json=content, request=request))
    assert "It is so." in str(problem)
    assert error.code in str(problem)
    if error.status == httpx.codes.UNAUTHORIZED:
        assert "PENSTOCK_TOKEN" in problem.remedy
    else:
        assert problem.remedy in {error.caller_action, error.operator_action}


def test_the_gateway_is_not_taken_for_control() -> None:
    """Whoever gave the gateway's address is told so, and not what it says to callers."""
    request = httpx.Request("GET", "http://gateway:8080/api/v1/organizations?limit=5")
    error = {"message": "No.", "code": "not_found", "penstock_code": "err:gateway:request:x"}
    problem = read_problem(httpx.Response(404, json={"error": error}, request=request))
    assert "http://gateway:8080/ is the gateway" in str(problem)
    assert "PENSTOCK_URL" in problem.remedy
