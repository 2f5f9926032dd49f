"""A stand-in for the agent: the other end of a worker's socket, told what to say."""

import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from penstock.contract.node import (
    AgentMessage,
    Frames,
    Hello,
    WorkerMessage,
    decode_worker_message,
    encode_message,
)

Kind = TypeVar("Kind")
Answers = Callable[[WorkerMessage], Sequence[AgentMessage]]


class FakeAgent:
    """Talks to one worker at a time.

    Args:
        path: Where to listen.
        greeting: Sent as soon as a worker said Hello.
        answer: Says what is answered to anything else.
    """

    def __init__(self, path: Path, greeting: Sequence[AgentMessage], answer: Answers) -> None:
        """See the class."""
        self.path = path
        self.greeting = greeting
        self._answer = answer
        self.received: list[WorkerMessage] = []
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        self._server.listen()
        self._worker: socket.socket | None = None
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def send(self, *messages: AgentMessage) -> None:
        """Tell the worker something."""
        assert self._worker is not None
        self._worker.sendall(b"".join(map(encode_message, messages)))

    def hang_up(self) -> None:
        """End the connection; the worker calls again."""
        assert self._worker is not None
        self._worker.shutdown(socket.SHUT_RDWR)

    def wait(self, kind: type[Kind], count: int = 1, timeout_s: float = 20.0) -> list[Kind]:
        """Wait for so many messages of a kind since the start, and return all of it."""
        deadline = time.monotonic() + timeout_s
        while True:
            found: list[Kind] = [each for each in self.received if isinstance(each, kind)]
            if len(found) >= count:
                return found
            assert time.monotonic() < deadline, f"{len(found)} of {count} {kind.__name__}"
            time.sleep(0.01)

    def stop(self) -> None:
        """Listen no more."""
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        if self._worker is not None:
            with suppress(OSError):
                self.hang_up()
        self._thread.join(5)

    def _serve(self) -> None:
        while True:
            try:
                self._worker, _ = self._server.accept()
            except OSError:
                return
            with self._worker:
                self._listen(self._worker)

    def _listen(self, worker: socket.socket) -> None:
        frames = Frames()
        with suppress(ConnectionError):
            while content := worker.recv(65_536):
                for payload in frames.feed(content):
                    message = decode_worker_message(payload)
                    self.received.append(message)
                    if isinstance(message, Hello):
                        self.send(*self.greeting)
                    answers = self._answer(message)
                    if answers:
                        self.send(*answers)


@contextmanager
def running_agent(*greeting: AgentMessage, answer: Answers = lambda _: []) -> Iterator[FakeAgent]:
    """Listen on a socket with a short name, and end afterwards.

    Args:
        greeting: Sent as soon as a worker said Hello.
        answer: Says what is answered to anything else.
    """
    folder = Path(tempfile.mkdtemp())
    agent = FakeAgent(folder / "agent.sock", greeting, answer)
    try:
        yield agent
    finally:
        agent.stop()
        shutil.rmtree(folder)
