"""Reads what control answers when it refuses or fails: problem details (RFC 9457) with a code."""

import importlib
from typing import Any

import httpx

from penstock.cli.errors import (
    CONTROL_FAILED,
    NOT_ALLOWED,
    CommandError,
    ControlRefusedError,
)
from penstock.kit.errors import ErrorCode

_MAX_CHARS = 500
_ROOMS = (
    "control",
    "access",
    "tenancy",
    "catalog",
    "catalog.credentials",
    "limits",
    "metering",
    "ledger",
    "billing",
    "rating",
    "rating.exports",
    "audit",
    "storage",
)
"""Whose codes control answers with."""
_AUTHENTICATION = "err:control:auth:"
"""Begin of the codes that are about the token alone."""
_GATEWAY = "err:gateway:"
"""Begin of the codes that the gateway answers callers with."""


def read_problem(answer: httpx.Response) -> CommandError:
    """Return what to tell about an answer that is no success: sentence, code and what to do."""
    request = f"{answer.request.method} {answer.request.url.path}"
    problem = _decode(answer)
    if _is_gateways(problem):
        where = answer.request.url.copy_with(raw_path=b"/")
        detail = f"What answers at {where} is the gateway, and not the control plane."
        remedy = "Set PENSTOCK_URL to control's: http://127.0.0.1:8081 where `penstock dev` runs."
        return CommandError(CONTROL_FAILED, detail, remedy)
    code = problem.get("code")
    is_about_token = not isinstance(code, str) or code.startswith(_AUTHENTICATION)
    if answer.status_code == httpx.codes.UNAUTHORIZED or (
        answer.status_code == httpx.codes.FORBIDDEN and is_about_token
    ):
        said = f": {_sentence(problem)}" if problem else "."
        said += f" ({code})" if isinstance(code, str) else ""
        return CommandError(NOT_ALLOWED, f"{request} answered {answer.status_code}{said}")
    if not isinstance(code, str):
        said = _sentence(problem) if problem else answer.text[:200]
        return CommandError(CONTROL_FAILED, f"{request} answered {answer.status_code}: {said}")
    return ControlRefusedError(
        code,
        answer.status_code,
        f"{_sentence(problem)} ({code})",
        _advice(code, problem),
        _faults(problem),
    )


def _is_gateways(problem: dict[str, Any]) -> bool:
    error = problem.get("error")
    return isinstance(error, dict) and _GATEWAY in str(error.get("penstock_code"))


def _decode(answer: httpx.Response) -> dict[str, Any]:
    try:
        problem = answer.json()
    except ValueError:
        return {}
    return problem if isinstance(problem, dict) else {}


def _sentence(problem: dict[str, Any]) -> str:
    sentence = str(problem.get("detail") or problem.get("title") or problem)
    told = [f"{fault.get('parameter')}: {fault.get('detail')}" for fault in _faults(problem)]
    if told:
        sentence = sentence.removesuffix(".")
    return "; ".join((sentence, *told))[:_MAX_CHARS]


def _faults(problem: dict[str, Any]) -> list[dict[str, Any]]:
    faults = problem.get("errors")
    return (
        [fault for fault in faults if isinstance(fault, dict)] if isinstance(faults, list) else []
    )


def _advice(code: str, problem: dict[str, Any]) -> str:
    """Return what the declared code advises; "" when this version does not know it."""
    error = _find_declared(code)
    if error is None:
        return "Try again in a moment." if problem.get("is_retryable") else ""
    # Behind a failure of control's own, the one who types is who can look after it.
    return error.caller_action if error.status < 500 else error.operator_action  # noqa: PLR2004


def _find_declared(code: str) -> ErrorCode | None:
    for room in _ROOMS:
        module = importlib.import_module(f"penstock.{room}.errors")
        for value in vars(module).values():
            if isinstance(value, ErrorCode) and value.code == code:
                return value
    return None
