"""The emulator as Triton: the Open Inference Protocol over HTTP, with its quirks.

Every model served is a text model in the manner of a TensorRT-LLM ensemble: `text_input` and
`max_tokens` go in, `text_output` comes out. Given other inputs, `infer` answers with them as they
are, bytes for bytes.
"""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from penstock.emulator.answers import error_script, plain_script, status_script
from penstock.emulator.kinds import error_object
from penstock.emulator.overlay import JSON_LENGTH, BadHeaderError, Headers, overlay
from penstock.emulator.script import Ending, Script, fixed_script
from penstock.emulator.settings import Behavior, EmulatorSettings
from penstock.emulator.text import answer_text, token_text
from penstock.emulator.wire import LAST_CHUNK, STREAM_HEAD, encode_json, event, plain_head

PREFIX = b"/v2"
_MODEL = re.compile(
    r"/v2/models/(?P<model>[^/]+)(?:/versions/(?P<version>[^/]+))?"
    r"(?:/(?P<verb>ready|infer|generate|generate_stream))?"
)
VERSION = "1"
"""The only one that a model has."""
_CHARACTERS_PER_TOKEN = 4
PARTS: dict[str, Any] = {
    "name": "triton",
    "version": "2.51.0",
    "extensions": ["model_repository", "binary_tensor_data", "parameters"],
}
"""What the server says of itself."""
_HANGUPS = {"fin": Ending.FIN, "reset": Ending.RESET}
Members = dict[str, Any]


class _Refused(Exception):  # noqa: N818 - an answer, no fault
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def answer_oip(
    settings: EmulatorSettings, method: bytes, path: bytes, headers: Headers, body: bytes
) -> Script:
    """Return the answer to a request below `/v2`.

    Args:
        settings: The server's.
        method: In capitals.
        path: Without its query.
        headers: As `requests` reads them.
        body: The whole of it.
    """
    try:
        if method != b"POST":
            return _answer_get(settings, path.decode("latin-1"))
        behavior = overlay(settings, headers)
        return _answer_post(settings, behavior, path.decode("latin-1"), headers, body)
    except BadHeaderError as error:
        return error_script("triton", 400, str(error))
    except _Refused as error:
        return error_script("triton", error.status, str(error))


def _answer_get(settings: EmulatorSettings, path: str) -> Script:
    if path == "/v2":
        return _plain(PARTS)
    if path in {"/v2/health/live", "/v2/health/ready"}:  # before any model is loaded, too
        return fixed_script(plain_head(200, 0, b"text/plain"), b"")
    model, verb = _find_model(settings, path)
    if verb == "ready":
        return fixed_script(plain_head(200, 0, b"text/plain"), b"")
    if verb:
        raise _Refused(405, "Method Not Allowed")
    text = {"datatype": "BYTES", "shape": [1]}
    return _plain(
        {
            "name": model,
            "versions": [VERSION],
            "platform": "ensemble",
            "inputs": [
                {"name": "text_input", **text},
                {"name": "max_tokens", "datatype": "INT32", "shape": [1]},
            ],
            "outputs": [{"name": "text_output", **text}],
        }
    )


def _answer_post(
    settings: EmulatorSettings, behavior: Behavior, path: str, headers: Headers, body: bytes
) -> Script:
    model, verb = _find_model(settings, path)
    behavior = msgspec.structs.replace(behavior, kind="triton")
    if behavior.fault == "status":
        return status_script(behavior)
    named = {"model_name": model, "model_version": VERSION}
    if verb == "infer":
        length = next((int(value) for name, value in headers if name == JSON_LENGTH), None)
        return _infer(behavior, named, body, length)
    members = _read(body)
    text = members.get("text_input")
    if not isinstance(text, str):
        raise _Refused(400, "expected input 'text_input' to be text")
    tokens = min(behavior.output_tokens, int(members.get("max_tokens", behavior.output_tokens)))
    counts = _counts(members, behavior, text)
    if verb == "generate":
        answer = named | counts(tokens) | {"text_output": answer_text(tokens)}
        time_ms = behavior.ttft_ms + behavior.itl_ms * max(tokens - 1, 0)
        return plain_script(encode_json(answer), behavior, time_ms)
    if verb != "generate_stream":
        raise _Refused(405, "Method Not Allowed")
    events = [
        event(named | counts(1) | {"text_output": token_text(position)})
        for position in range(tokens)
    ]
    return _stream(behavior, events)


def _find_model(settings: EmulatorSettings, path: str) -> tuple[str, str]:
    """Return which model and what of it a path names."""
    match = _MODEL.fullmatch(path)
    if match is None:
        raise _Refused(404, "Not Found")
    model, version, verb = match["model"], match["version"], match["verb"] or ""
    is_there = settings.serves(model) and version in {None, VERSION}
    if not is_there and verb == "ready":
        raise _Refused(400, "Model version not ready")
    if not is_there:
        which = f" version {version}" if version else ""
        raise _Refused(404, f"Request for unknown model: '{model}'{which} is not found")
    return model, verb


def _read(body: bytes) -> Members:
    try:
        found = json.loads(body)
    except ValueError:
        raise _Refused(400, "failed to parse the request JSON buffer") from None
    if not isinstance(found, dict):
        raise _Refused(400, "failed to parse the request JSON buffer")
    return found


def _counts(members: Members, behavior: Behavior, text: str) -> Callable[[int], dict[str, int]]:
    """Return what makes the token counts that a request asks for."""
    sent = max(1, -(-len(text) // _CHARACTERS_PER_TOKEN))
    inputs = sent if behavior.input_tokens < 0 else behavior.input_tokens

    def counts(outputs: int) -> dict[str, int]:
        found = {}
        if members.get("return_num_input_tokens"):
            found["num_input_tokens"] = inputs
        if members.get("return_num_output_tokens"):
            found["num_output_tokens"] = outputs
        return found

    return counts


def _stream(behavior: Behavior, events: list[bytes]) -> Script:
    """Return the script of a stream, which has no last event that says so."""
    fault, after = behavior.fault, behavior.fault_after
    ending = Ending.KEEP
    steps = [*events[:-1], (events or [b""])[-1] + LAST_CHUNK]
    if fault in ("disconnect", "stall", "truncate") and after < len(events):
        ending = Ending.STALL if fault == "stall" else _HANGUPS[behavior.hangup]
        steps = events[:after]
    elif fault == "error_in_200" and after < len(events):
        error = event(error_object("triton", 500, "emulated engine failure"))
        steps = [*events[:after], error + LAST_CHUNK]

    def play() -> Iterator[bytes]:
        return iter(steps)

    return Script(
        head=STREAM_HEAD,
        steps=play,
        first_ms=behavior.ttft_ms,
        interval_ms=behavior.itl_ms,
        ending=ending,
        is_stream=True,
    )


def _infer(behavior: Behavior, named: Members, body: bytes, length: int | None) -> Script:
    head, tail = (body, b"") if length is None else (body[:length], body[length:])
    request = _read(head)
    inputs = request.get("inputs")
    if not isinstance(inputs, list) or not inputs:
        raise _Refused(400, "failed to parse the request JSON buffer: no inputs")
    by_name = {each.get("name"): each for each in inputs}
    if "text_input" in by_name:
        tokens = behavior.output_tokens
        outputs = [_output("text_output", "BYTES", [1], [answer_text(tokens)])]
        outputs.append(_output("num_input_tokens", "INT32", [1], [7]))
        outputs.append(_output("num_output_tokens", "INT32", [1], [tokens]))
        wanted = {each["name"] for each in request.get("outputs", [])}
        outputs = [each for each in outputs if not wanted or each["name"] in wanted]
        tail = b""
    else:
        if any(each.get("datatype") not in {"FP32", "INT32", "BYTES"} for each in inputs):
            raise _Refused(400, "inference input data-type is not what the model expects")
        outputs = inputs
    answer = named | {"outputs": outputs}
    if "id" in request:
        answer = {"id": request["id"]} | answer
    content = encode_json(answer)
    if tail:
        extra = (b"Inference-Header-Content-Length: %d" % len(content),)
        whole = content + tail
        return fixed_script(
            plain_head(200, len(whole), b"application/octet-stream", extra),
            whole,
            behavior.ttft_ms,
        )
    return plain_script(content, behavior, behavior.ttft_ms)


def _output(name: str, datatype: str, shape: list[int], data: list[Any]) -> Members:
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


def _plain(payload: object) -> Script:
    body = encode_json(payload)
    return fixed_script(plain_head(200, len(body)), body)
