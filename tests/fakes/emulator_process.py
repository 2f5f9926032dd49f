"""The emulator as a process of its own: an engine on a URL."""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tests.fakes.dev_instance import PENSTOCK
from tests.fakes.ports import free_port


@contextmanager
def running_emulator(*models: str, options: Sequence[str] = ()) -> Iterator[str]:
    """Run an engine that serves these models, with these options, and return its URL."""
    port = free_port()
    command = [*PENSTOCK, "emulator", "--port", str(port), "--models", ",".join(models), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()  # it says that it listens
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
