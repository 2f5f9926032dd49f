"""How kinds of model servers differ: shapes of errors, words of overload, paths, metrics.

What is known of them is `penstock.engines`; here is what only an imitation needs.
"""

import json
from collections.abc import Callable
from typing import Literal

from penstock.engines.emulator import EMULATOR
from penstock.engines.load import REPORT
from penstock.engines.registry import ENGINES

Kind = Literal["openai_compatible", "vllm", "sglang", "trtllm", "triton", "dynamo"]

_BAD_REQUEST_BELOW = 500
_Shape = Callable[[int, str, str | None], dict[str, object]]


def _openai(status: int, message: str, code: str | None) -> dict[str, object]:
    kind = "invalid_request_error" if status < _BAD_REQUEST_BELOW else "server_error"
    return {"error": {"message": message, "type": kind, "param": None, "code": code or status}}


def _vllm(status: int, message: str, code: str | None) -> dict[str, object]:
    del code
    kind = "BadRequestError" if status < _BAD_REQUEST_BELOW else "Service Unavailable"
    return {"error": {"message": message, "type": kind, "param": None, "code": status}}


def _flat(status: int, message: str, code: str | None) -> dict[str, object]:
    del code
    kind = "BadRequest" if status < _BAD_REQUEST_BELOW else "InternalServerError"
    return {"object": "error", "message": message, "type": kind, "param": None, "code": status}


def _trtllm(status: int, message: str, code: str | None) -> dict[str, object]:
    is_invalid = status < _BAD_REQUEST_BELOW
    return _triton(status, message, code) if is_invalid else _flat(status, message, code)


def _triton(status: int, message: str, code: str | None) -> dict[str, object]:
    del status, code
    return {"error": message}


def _dynamo(status: int, message: str, code: str | None) -> dict[str, object]:
    del code
    kind = "Overloaded" if status == _BUSY["dynamo"][0] else "Error"
    return {"message": message, "type": kind, "code": status}


_SHAPES: dict[Kind, _Shape] = {
    "openai_compatible": _openai,
    "vllm": _vllm,
    "sglang": _flat,
    "trtllm": _trtllm,
    "triton": _triton,
    "dynamo": _dynamo,
}
_BUSY: dict[Kind, tuple[int, str]] = {
    "openai_compatible": (503, "emulated engine failure"),
    "vllm": (503, "The emulated engine is busy."),
    "sglang": (503, "The emulated request queue is full."),
    "trtllm": (503, "emulated engine failure"),
    "triton": (503, "The emulated request exceeds the maximum queue size."),
    "dynamo": (529, "The emulated service is overloaded."),
}
"""Status and words of a server without room."""
_REPORTED: dict[Kind, tuple[str, ...]] = {
    "vllm": ("kv_cache_usage_perc", "num_requests_waiting"),
    "triton": ("kv_cache_utilization",),
}
"""What those say in answers that do; Triton also says how many tokens fit, which tells nothing."""


def error_object(
    kind: Kind, status: int, message: str, code: str | None = None
) -> dict[str, object]:
    """Return the error object that a kind of server answers with.

    Args:
        kind: Whose.
        status: That it goes with.
        message: What is wrong.
        code: A word for it, where that kind has words.
    """
    return _SHAPES[kind](status, message, code)


def busy_answer(kind: Kind) -> tuple[int, str]:
    """Return the status and the words of a kind of server that has no room."""
    return _BUSY[kind]


def most_choices(kind: Kind) -> int | None:
    """Return how many choices it answers, however many are asked for; None for as many."""
    return ENGINES[kind].most_choices


def health_paths(kind: Kind, models: tuple[str, ...]) -> frozenset[bytes]:
    """Return the paths that say that it serves, or that it serves one of its models."""
    engine = ENGINES[kind]
    ready = engine.ready_path or ""
    paths = {"/health", engine.health_path or "", *(ready.format(model=name) for name in models)}
    return frozenset(path.encode() for path in paths - {""})


def operation_paths(kind: Kind) -> dict[bytes, str]:
    """Return which path has it do which operation; those of models have paths of their own."""
    engine = EMULATOR if kind == "openai_compatible" else ENGINES[kind]
    return {each.path.encode(): each.name for each in engine.operations if "{" not in each.path}


def metrics_path(kind: Kind) -> bytes | None:
    """Return where it says how busy it is; None when it does not."""
    load = ENGINES[kind].load
    return None if load is None else load.path.encode()


def load_figures(active_count: int, batch: int) -> tuple[int, int, float]:
    """Return how many answers run and how many wait, and the share of the cache in use.

    Args:
        active_count: Answers on their way; none really waits here.
        batch: How many run at most; all of them when 0.
    """
    running = min(active_count, batch) if batch else active_count
    return running, active_count - running, running / batch if batch else 0.0


def load_report(kind: Kind, form: bytes, active_count: int, batch: int) -> bytes:
    """Return the header line in which an answer says how busy it is; b"" where none does.

    Args:
        kind: Whose.
        form: Which one is asked for, `text` or `json`; Triton knows small letters only.
        active_count: See `load_figures`.
        batch: See there.
    """
    names = _REPORTED.get(kind)
    form = form if kind == "triton" else form.lower()
    if names is None or form not in (b"text", b"json"):
        return b""
    _, waiting, cache_use = load_figures(active_count, batch)
    said = dict(zip(names, (cache_use, float(waiting)), strict=False))
    if form == b"json":
        text = "JSON " + json.dumps({"named_metrics": said})
    else:
        text = "TEXT " + ", ".join(
            f"named_metrics.{name}={figure}" for name, figure in said.items()
        )
    return f"{REPORT}: {text}\r\n".encode()


def metrics_text(kind: Kind, active_count: int, batch: int) -> bytes:
    """Return its metrics in Prometheus' text form.

    Args:
        kind: Whose.
        active_count: See `load_figures`.
        batch: See there.
    """
    load = ENGINES[kind].load
    if load is None:
        return b""
    names = (load.running, load.waiting, load.cache_use)
    figures = dict(zip(names, load_figures(active_count, batch), strict=True))
    return "".join(f"{name} {figure}\n" for name, figure in figures.items() if name).encode()


def drained_path(kind: Kind) -> bytes | None:
    """Return where what is read is gone for all other readers; None where nothing is so."""
    drained = ENGINES[kind].never_polled
    return drained[0].encode() if drained else None
