"""Models for a real Triton, served by PyTriton: text answered many times or once, and numbers.

Run by `test_triton.py` with a Python that has `nvidia-pytriton`: HTTP, gRPC and metrics ports.
"""

import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

WORDS = 3
SLOW = b"slow"
"""A text that begins so is answered a word a fifth of a second."""
SLOW_NUMBER = 1e6
"""One more than this is known only after six seconds."""


def write(requests: list[Any]) -> Iterator[list[dict[str, Any]]]:
    """Answer a word at a time, with the counts that backends of language models give."""
    request = requests[0]
    text = request["text_input"].reshape(-1)[0]
    count = int(request["max_tokens"].reshape(-1)[0]) if "max_tokens" in request.data else WORDS
    for position in range(count):
        if text.startswith(SLOW):
            time.sleep(0.2)
        yield [
            {
                "text_output": np.array([f"word{position} ".encode()], dtype=object),
                "num_input_tokens": np.array([len(text)], dtype=np.int32),
                "num_output_tokens": np.array([1], dtype=np.int32),
            }
        ]


def tell(requests: list[Any]) -> list[dict[str, Any]]:
    """Answer once, with the text itself."""
    return [{"text_output": request["text_input"]} for request in requests]


def add(**inputs: Any) -> dict[str, Any]:
    """Add one."""
    if inputs["a"].max() >= SLOW_NUMBER:
        time.sleep(6)
    return {"b": inputs["a"] + 1}


def _text(name: str) -> Any:
    return Tensor(name=name, dtype=bytes, shape=(1,))


def _count(name: str, *, optional: bool = False) -> Any:
    return Tensor(name=name, dtype=np.int32, shape=(1,), optional=optional)


def main(http: int, grpc: int, metrics: int) -> None:
    """Serve until told to end."""
    config = TritonConfig(
        http_port=http,
        grpc_port=grpc,
        metrics_port=metrics,
        http_address="127.0.0.1",
        grpc_address="127.0.0.1",
        log_verbose=1,  # tells of cancellations
    )
    triton = Triton(config=config)
    triton.bind(
        model_name="writer",
        infer_func=write,
        inputs=[_text("text_input"), _count("max_tokens", optional=True)],
        outputs=[_text("text_output"), _count("num_input_tokens"), _count("num_output_tokens")],
        config=ModelConfig(batching=False, decoupled=True),
    )
    triton.bind(
        model_name="teller",
        infer_func=tell,
        inputs=[_text("text_input")],
        outputs=[_text("text_output")],
        config=ModelConfig(batching=False),
    )
    triton.bind(
        model_name="adder",
        infer_func=batch(add),
        inputs=[Tensor(name="a", dtype=np.float32, shape=(-1,))],
        outputs=[Tensor(name="b", dtype=np.float32, shape=(-1,))],
        config=ModelConfig(
            max_batch_size=8,
            batcher=DynamicBatcher(priority_levels=3, default_priority_level=2),
        ),
    )
    triton.serve()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
