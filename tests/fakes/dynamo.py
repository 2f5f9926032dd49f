"""A real NVIDIA Dynamo: its frontend, with a router of its own, before two simulated engines.

The processes are those of its wheels. They find each other through a folder and talk over the
loopback; the engines say random words, and count tokens and caches as vLLM would.
"""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
from tests.fakes.engine_wheels import engine_python
from tests.fakes.plain_http import NO_TLS
from tests.fakes.ports import free_port

MODEL = "mock-llm"
CONTEXT_TOKENS = 8192
ENGINES = ("ai-dynamo==1.6.1", "ai-dynamo-runtime==1.6.1")
"""Installed alone: else they bring the libraries of a whole engine."""
LIBRARIES = (
    "aiohttp>=3.10,<4",
    "fastapi>=0.115,<1",
    "msgspec>=0.19,<1",
    "numpy>=1.26,<3",
    "packaging",
    "prometheus-client>=0.21,<1",
    "pydantic>=2.10.6,<=2.13.5",
    "pyyaml>=6,<7",
    "pyzmq>=26,<28",
    "uvloop>=0.21,<1",
)
START_S = 90.0
_WORDS = 8192
"""More tokens than the simulated engines know: what they say is text."""
_SPECIAL = ("<|bos|>", "<|user|>", "<|assistant|>", "<|eos|>")
_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}{% endfor %}"
    "<|assistant|>"
)


@contextmanager
def running_dynamo(folder: Path, *, port: int | None = None) -> Iterator[str]:
    """Run a Dynamo and return its frontend's URL.

    Args:
        folder: Empty; for its files.
        port: Where the frontend listens; a free one when None.
    """
    python = engine_python("dynamo", LIBRARIES, alone=ENGINES)
    model = folder / "model"
    write_model(model)
    port = port or free_port()
    url = f"http://127.0.0.1:{port}"
    mocker = ("--model-path", str(model), "--model-name", MODEL, "--num-workers", "2")
    sizes = ("--num-gpu-blocks-override", "1024", "--block-size", "16")
    limits = ("--max-model-len", str(CONTEXT_TOKENS), "--speedup-ratio", "2")
    listen = ("--http-port", str(port), "--http-host", "127.0.0.1")
    # Told, it does not look into the model for it, with a library that is not installed.
    cache = ("--kv-bytes-per-token", "1024")
    processes = []
    with ExitStack() as stack:
        for number, command in enumerate(
            (
                ("dynamo.mocker", *mocker, *sizes, *limits, *cache),
                ("dynamo.frontend", *listen, "--router-mode", "kv"),
            )
        ):
            log = stack.enter_context((folder / f"{number}.log").open("wb"))
            process = subprocess.Popen(
                [str(python), "-m", *command],
                env=_environment(folder),
                stdout=log,
                stderr=log,
            )
            processes.append(process)
            stack.callback(process.wait)
            stack.callback(process.kill)
        _wait_ready(url, folder, processes)
        yield url


def _environment(folder: Path) -> dict[str, str]:
    return os.environ | {
        "HOME": str(folder),
        "HF_HUB_OFFLINE": "1",
        "DYN_DISCOVERY_BACKEND": "file",
        "DYN_FILE_KV": str(folder / "discovery"),
        "DYN_EVENT_PLANE": "zmq",
        "DYN_EVENT_PLANE_HOST": "127.0.0.1",
        "DYN_REQUEST_PLANE": "tcp",
        "DYN_TCP_RPC_HOST": "127.0.0.1",
        "DYN_TCP_RESPONSE_STREAM_HOST": "127.0.0.1",
        "DYN_SELF_HOST_METADATA": "0",
        "DYN_LOG": "warn",
        "TOKIO_WORKER_THREADS": "1",
        "DYN_RUNTIME_NUM_WORKER_THREADS": "1",
    }


def _wait_ready(url: str, folder: Path, processes: "list[subprocess.Popen[bytes]]") -> None:
    deadline = time.monotonic() + START_S
    with httpx.Client(verify=NO_TLS) as client:
        while True:
            try:
                if client.get(f"{url}/v1/models/{MODEL}/ready").json().get("ready"):
                    return
            except httpx.TransportError:
                pass  # not yet
            has_ended = any(process.poll() is not None for process in processes)
            if has_ended or time.monotonic() > deadline:
                logs = "\n".join(log.read_text()[-2000:] for log in folder.glob("*.log"))
                message = f"Dynamo did not start: {logs}"
                raise TimeoutError(message)
            time.sleep(0.1)


def write_model(folder: Path) -> None:
    """Write a model without weights: a tokenizer of bytes and made-up words, and its sizes."""
    folder.mkdir(parents=True)
    vocabulary = {letter: number for number, letter in enumerate(_byte_letters())}
    first_word = len(vocabulary) + len(_SPECIAL)
    # Nothing merges to them: they are only said, never read.
    vocabulary |= {f"\u0120word{number}": number for number in range(first_word, _WORDS)}
    levels = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    _write(
        folder / "tokenizer.json",
        version="1.0",
        added_tokens=[
            {"id": number, "content": name, "special": True}
            | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
            for number, name in enumerate(_SPECIAL, 256)
        ],
        pre_tokenizer=levels | {"use_regex": False},
        decoder=levels | {"use_regex": False},
        model={"type": "BPE", "vocab": vocabulary, "merges": []},
    )
    ends = {"bos_token_id": 256, "eos_token_id": 259}
    _write(
        folder / "config.json",
        architectures=["LlamaForCausalLM"],
        model_type="llama",
        vocab_size=_WORDS,
        max_position_embeddings=CONTEXT_TOKENS,
        **ends,
    )
    _write(folder / "generation_config.json", **ends)
    _write(
        folder / "tokenizer_config.json",
        tokenizer_class="PreTrainedTokenizerFast",
        bos_token=_SPECIAL[0],
        eos_token=_SPECIAL[-1],
        model_max_length=CONTEXT_TOKENS,
        chat_template=_TEMPLATE,
    )


def _byte_letters() -> list[str]:
    """Return the letter that stands for each byte in tokenizers of the ByteLevel kind.

    Bytes that print stand for themselves, the others for letters from U+0100 on.
    """
    plain = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in plain else next(others)) for byte in range(0x100)]


def _write(path: Path, **members: object) -> None:
    path.write_text(json.dumps(members), "utf-8")
