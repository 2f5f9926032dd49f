"""The Open Inference Protocol (KServe v2) with Triton's extensions: paths, operations, errors.

Shapes are the protocol's public specification; what Triton really does was seen on one.
"""

import re
from typing import Final
from urllib.parse import quote, unquote

import msgspec

from penstock.gateway.dialects.errors import ADMIN_PATH, VERSION_NOT_FOUND
from penstock.gateway.dialects.openai import Operation
from penstock.gateway.errors import NOT_FOUND
from penstock.kit.errors import Refusal

V2: Final = b"/v2"
V2_LIVE: Final = b"/v2/health/live"
V2_READY: Final = b"/v2/health/ready"
OWN_PATHS: Final = frozenset({V2, V2_LIVE, V2_READY})
"""What we answer ourselves."""

INFER = Operation("oip_infer", "/infer", has_output=True)
STREAM_INFER = Operation("oip_stream_infer", "/infer", can_stream=True, has_output=True)
"""One message of a stream of requests: over gRPC alone."""
GENERATE = Operation("oip_generate", "/generate", "text_input", has_output=True)
GENERATE_STREAM = Operation(
    "oip_generate_stream", "/generate_stream", "text_input", can_stream=True, has_output=True
)
MODEL_METADATA = Operation("oip_model_metadata", "", has_usage=False)
MODEL_READY = Operation("oip_model_ready", "/ready", has_usage=False)
READS: Final = frozenset({MODEL_METADATA, MODEL_READY})
"""What is asked with GET."""
_OPERATIONS = {
    operation.path[1:].encode(): operation
    for operation in (INFER, GENERATE, GENERATE_STREAM, MODEL_METADATA, MODEL_READY)
}
EXTENSIONS: Final = ("binary_tensor_data", "parameters", "sequence")
"""Of the protocol, that a server behind us may have."""
_ADMIN_VERBS = (b"config", b"stats", b"trace/setting")
_ADMIN_PATHS = (
    b"/v2/repository",
    b"/v2/systemsharedmemory",
    b"/v2/cudasharedmemory",
    b"/v2/trace",
    b"/v2/logging",
    b"/v2/models/stats",
)
_VERBS = b"|".join((b"infer|generate|generate_stream|ready", *_ADMIN_VERBS))
_MODEL = re.compile(
    rb"/v2/models/(?P<model>.+?)(?:/versions/(?P<version>[^/]+))?(?:/(?P<verb>" + _VERBS + rb"))?"
)
_VERSION = re.compile(r"[0-9A-Za-z_-]{1,32}", re.ASCII)
_encode = msgspec.json.Encoder().encode


class Call(msgspec.Struct, frozen=True):
    """What a path asks for, of which model."""

    operation: Operation
    model: msgspec.Raw
    """The alias, as JSON."""
    version: str = ""
    """"" for whichever the server takes."""

    def path(self, model: str) -> str:
        """Return where a server has it, by the server's own name of the model."""
        return model_path(model, self.operation, self.version)


def model_path(model: str, operation: Operation, version: str = "") -> str:
    """Return where a server has an operation, by its own name of the model."""
    version = f"/versions/{version}" if version else ""
    return f"/v2/models/{quote(model, safe='')}{version}{operation.path}"


def is_path(target: bytes) -> bool:
    """Return whether a path is one of this protocol."""
    return target == V2 or target.startswith(b"/v2/")


def find_call(path: bytes) -> Call | Refusal:
    """Return what a path below `/v2/` asks for.

    What a server's operators do with it (loading models, shared memory, statistics of all its
    callers) is nobody's who calls through a gateway.

    Args:
        path: Without its query.
    """
    if any(path == each or path.startswith(each + b"/") for each in _ADMIN_PATHS):
        return Refusal(ADMIN_PATH)
    match = _MODEL.fullmatch(path)
    if match is None:
        return Refusal(NOT_FOUND)
    verb, version = match["verb"] or b"", match["version"] or b""
    if verb in _ADMIN_VERBS:
        return Refusal(ADMIN_PATH)
    model = unquote(match["model"].decode("latin-1"))
    return make_call(_OPERATIONS[verb], msgspec.Raw(_encode(model)), version.decode("latin-1"))


def make_call(operation: Operation, model: msgspec.Raw, version: str) -> Call | Refusal:
    """Return a call, unless no model can have such a version.

    Args:
        operation: What is asked for.
        model: The alias, as JSON.
        version: "" for whichever the server takes.
    """
    if version and _VERSION.fullmatch(version) is None:
        return Refusal(VERSION_NOT_FOUND)
    return Call(operation, model, version)


def metadata_body(version: str) -> bytes:
    """Return what a server is, as far as callers have to know."""
    return _encode({"name": "penstock", "version": version, "extensions": EXTENSIONS})


def error_body(refusal: Refusal) -> bytes:
    """Return an error as this protocol tells it; our code is in the header."""
    return _encode({"error": refusal.message})
