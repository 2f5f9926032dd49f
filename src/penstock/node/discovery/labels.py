"""What labels say of an endpoint: how much it takes, and which kind of server it is. Pure."""

from collections.abc import Mapping

import msgspec

from penstock.contract.snapshot import MAX_ENDPOINT_WEIGHT, Endpoint

ENGINE = "llm-d.ai/engine-type"
"""Of pods, as llm-d writes it."""
WEIGHT = "penstock/weight"
"""Of pods; an annotation or a label."""
FILE_ENGINE, FILE_WEIGHT = "__engine__", "__weight__"
"""The same in files."""
_PROVIDERS = {"trtllm-serve": "trtllm", "triton-tensorrt-llm": "triton"}
"""What llm-d calls otherwise than we do."""


def read_weight(text: object) -> int:
    """Return a weight.

    Raises:
        ValueError: It is none.
    """
    written = str(text)
    weight = int(written) if written.isascii() and written.isdigit() else 0
    if not 1 <= weight <= MAX_ENDPOINT_WEIGHT:
        message = f"a weight is no whole number from 1 to {MAX_ENDPOINT_WEIGHT}: {written[:32]!r}"
        raise ValueError(message)
    return weight


def labelled(
    endpoint: Endpoint, labels: Mapping[str, object], engine: str, weight: str
) -> Endpoint:
    """Return an endpoint with what its labels say.

    Args:
        endpoint: As it was found.
        labels: All of them, by name.
        engine: The name of the one that says its kind.
        weight: And of the one that says its weight.

    Raises:
        ValueError: The weight is none.
    """
    kind = str(labels.get(engine, ""))
    return msgspec.structs.replace(
        endpoint,
        weight=read_weight(labels.get(weight, 1)),
        engine=_PROVIDERS.get(kind, kind),
    )
