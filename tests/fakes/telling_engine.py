"""An emulated engine, as a process, that tells of its KV cache and can be killed."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from tests.fakes.dev_instance import PENSTOCK
from tests.fakes.ports import free_port

BLOCK = "0123456789abcdef" * 4
"""Characters of a block of 16 tokens."""


class TellingEngine:
    """Keeps its ports from one start to the next.

    Args:
        kind: Which server it plays.
        can_replay: Whether it sends again what was missed, where somebody knows to ask.
        options: Further ones of `penstock emulator`.
    """

    def __init__(self, kind: str = "vllm", *options: str, can_replay: bool = True) -> None:
        """See the class."""
        self.port, self.events_port, self.replay_port = free_port(), free_port(), free_port()
        self.ports = (
            f"{self.events_port}/{self.replay_port}" if can_replay else str(self.events_port)
        )
        self._command = [*PENSTOCK, "emulator", "--port", str(self.port), "--kind", kind]
        self._command += ["--models", "served-model", "--kv-events-port", str(self.events_port)]
        self._command += ["--kv-replay-port", str(self.replay_port), *options]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, with nothing in its cache."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self._process.stdout.readline()  # it says that it listens

    def kill(self) -> None:
        """End it at once, if it runs."""
        if self._process is not None:
            assert self._process.stdout is not None
            self._process.kill()
            self._process.wait()
            self._process.stdout.close()
            self._process = None

    async def read(self, prompt: str, salt: str | None = None) -> None:
        """Have it read a prompt."""
        salted = {} if salt is None else {"cache_salt": salt}
        body = {"model": "served-model", "prompt": prompt, "max_tokens": 1, **salted}
        await self._post("/v1/completions", body)

    async def clear(self) -> None:
        """Have it empty its cache."""
        await self._post("/emulator/reset", {})

    async def _post(self, path: str, body: dict[str, object]) -> None:
        async with httpx.AsyncClient(timeout=30) as client:
            (await client.post(self.url + path, json=body)).raise_for_status()


@contextmanager
def telling_engine(
    kind: str = "vllm", *options: str, can_replay: bool = True
) -> Iterator[TellingEngine]:
    """Run one."""
    engine = TellingEngine(kind, *options, can_replay=can_replay)
    try:
        engine.start()
        yield engine
    finally:
        engine.kill()
