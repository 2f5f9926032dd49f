"""Which calls there are, and what of them is answered without an engine. Pure."""

from typing import Final, NamedTuple

from penstock import __version__
from penstock.gateway.dialects.errors import ADMIN_PATH
from penstock.gateway.dialects.oip import (
    EXTENSIONS,
    INFER,
    MODEL_METADATA,
    MODEL_READY,
    STREAM_INFER,
    V2,
    V2_LIVE,
    V2_READY,
)
from penstock.gateway.dialects.openai import Operation
from penstock.gateway.errors import NOT_FOUND
from penstock.gateway.form_grpc import SERVICE
from penstock.kit.errors import Refusal
from penstock.kit.protobuf import length_field, varint_field

_HEALTH: Final = "/grpc.health.v1.Health/"


class Method(NamedTuple):
    """What is called."""

    operation: Operation | None = None
    """What an engine is asked for; None for what is answered here."""
    target: bytes = b""
    """The path that asks for the same by HTTP: it needs a key, or does not, alike."""
    is_health: bool = False
    is_stream: bool = False
    """Whether there may be many messages: of requests, or of answers."""


CHECK: Final = Method(is_health=True)
WATCH: Final = Method(is_health=True, is_stream=True)
LIVE: Final = Method(target=V2_LIVE)
READY: Final = Method(target=V2_READY)
METADATA: Final = Method(target=V2)
_METHODS: Final[dict[str, Method]] = {
    SERVICE + "ModelInfer": Method(INFER),
    SERVICE + "ModelStreamInfer": Method(STREAM_INFER, is_stream=True),
    SERVICE + "ModelMetadata": Method(MODEL_METADATA),
    SERVICE + "ModelReady": Method(MODEL_READY),
    SERVICE + "ServerLive": LIVE,
    SERVICE + "ServerReady": READY,
    SERVICE + "ServerMetadata": METADATA,
    _HEALTH + "Check": CHECK,
    _HEALTH + "Watch": WATCH,
}
_BY_PATH: Final = {path.encode(): method for path, method in _METHODS.items()}
_ADMIN: Final = frozenset(
    (SERVICE + name).encode()
    for name in (
        "ModelConfig",
        "ModelStatistics",
        "RepositoryIndex",
        "RepositoryModelLoad",
        "RepositoryModelUnload",
        "SystemSharedMemoryStatus",
        "SystemSharedMemoryRegister",
        "SystemSharedMemoryUnregister",
        "CudaSharedMemoryStatus",
        "CudaSharedMemoryRegister",
        "CudaSharedMemoryUnregister",
        "TraceSetting",
        "LogSettings",
    )
)


def find_method(path: bytes) -> Method | Refusal:
    """Return what a path calls.

    What a server's operators do with it is nobody's who calls through a gateway.
    """
    method = _BY_PATH.get(path)
    if method is not None:
        return method
    return Refusal(ADMIN_PATH if path in _ADMIN else NOT_FOUND)


def own_message(method: Method, *, is_ready: bool) -> bytes:
    """Return what we say of ourselves.

    Args:
        method: One that no engine is asked for, and not of health.
        is_ready: Whether requests are taken.
    """
    if method is METADATA:
        return b"".join(
            [
                length_field(1, b"penstock"),
                length_field(2, __version__.encode()),
                *(length_field(3, name.encode()) for name in EXTENSIONS),
            ]
        )
    return varint_field(1, 1) if is_ready or method is LIVE else b""
