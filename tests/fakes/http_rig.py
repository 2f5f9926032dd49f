"""A real worker in front of a recording engine, and requests to tempt it with."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from tests.fakes.raw_http import Answer, RawConnection, ask
from tests.fakes.recording_engine import RecordingEngine, running_engine
from tests.fakes.worker_process import KEY, PEPPER, WorkerProcess, make_snapshot, running_worker

from penstock.access.rules import create_key, key_mac
from penstock.contract.snapshot import Alias, Choice, Deployment, Key, Route, Snapshot

CHAT = b'{"model":"model-a","messages":[{"role":"user","content":"x"}]}'
CREDENTIAL = "canary-upstream-credential-1c6f0a"
"""What the worker shows to the engine, and to nobody else."""
EXPIRED_KEY = create_key()
OPEN_KEY = create_key()
"""A key that may use every alias."""
PATH = b"/v1/chat/completions"
_PROBE = b'{"model":"model-a","messages":["probe"]}'
_PROBE_SEEN = b'{"model":"served-model","messages":["probe"]}'


def request(
    body: bytes = CHAT,
    *fields: bytes,
    method: bytes = b"POST",
    path: bytes = PATH,
    host: bytes = b"Host: gateway",
    key: str | None = KEY,
    framing: bytes | None = None,
    version: bytes = b"1.1",
) -> bytes:
    """Return a request as bytes, valid unless told otherwise.

    Args:
        body: Sent as it is.
        fields: More header lines.
        method: Method.
        path: Target.
        host: The Host line; nothing when empty.
        key: Sent as bearer token; nothing when None.
        framing: Instead of the Content-Length line that fits the body; nothing when empty.
        version: HTTP version.
    """
    lines = [b"%b %b HTTP/%b" % (method, path, version)]
    if host:
        lines.append(host)
    if key is not None:
        lines.append(b"Authorization: Bearer " + key.encode())
    if framing is None:
        framing = b"Content-Length: %d" % len(body) if body else b""
    if framing:
        lines.append(framing)
    return b"\r\n".join([*lines, *fields]) + b"\r\n\r\n" + body


def get(path: bytes, *fields: bytes, method: bytes = b"GET", key: str | None = None) -> bytes:
    """Return a request without a body."""
    return request(b"", *fields, method=method, path=path, key=key)


def chunk(content: bytes) -> bytes:
    """Return one chunk of a chunked body; the last one for nothing."""
    return b"%x\r\n%b\r\n" % (len(content), content)


def chunked(body: bytes = CHAT, *fields: bytes, key: str | None = KEY) -> bytes:
    """Return a request whose body is one chunk and the last one."""
    return request(
        chunk(body) + chunk(b""), *fields, framing=b"Transfer-Encoding: chunked", key=key
    )


def chat(text: str, **members: object) -> bytes:
    """Return the body of a chat that says `text`."""
    whole = {"model": "model-a", "messages": [{"role": "user", "content": text}]} | members
    return msgspec.json.encode(whole)


def as_engine_sees(body: bytes) -> bytes:
    """Return what the engine gets of a plain chat with `model-a`: the alias is replaced."""
    return body.replace(b'"model":"model-a"', b'"model":"served-model"', 1)


@dataclass
class Rig:
    """A worker under test and the engine behind it."""

    worker: WorkerProcess
    engine: RecordingEngine

    @property
    def port(self) -> int:
        """Where the worker listens."""
        return self.worker.port

    def ask(self, content: bytes, *, is_head: bool = False) -> Answer:
        """Send one request on a connection of its own and return the answer."""
        return ask(self.port, content, is_head=is_head)

    def connect(self, timeout_s: float = 20.0) -> RawConnection:
        """Return a new connection to the worker."""
        return RawConnection(self.port, timeout_s=timeout_s)

    def bodies(self) -> list[bytes]:
        """Return the bodies that the engine got since the test began or `expect_untouched`."""
        return [seen.body for seen in self.engine.seen]

    def expect_untouched(self) -> None:
        """Show that nothing reached the engine, and that the worker still serves.

        The probe goes the same way as anything before it, so it comes after it.
        """
        answer = self.ask(request(_PROBE))
        assert answer.status == 200
        assert self.bodies() == [_PROBE_SEEN]
        self.engine.seen.clear()


def rig_snapshot(folder: Path, engine_port: int) -> Snapshot:
    """Return a snapshot with keys of all kinds and an upstream that wants a credential."""
    (folder / "credential").write_text(CREDENTIAL)
    plain = make_snapshot([engine_port])
    return msgspec.structs.replace(
        plain,
        keys=(
            *plain.keys,
            Key("old", key_mac(PEPPER, EXPIRED_KEY.encode()), "org-a", "project-a", None, 1_000),
            Key("all", key_mac(PEPPER, OPEN_KEY.encode()), "org-a", "project-a"),
        ),
        upstreams=(
            msgspec.structs.replace(plain.upstreams[0], credential=f"file:{folder / 'credential'}"),
        ),
        deployments=(
            *plain.deployments,
            Deployment("small", "engine", "served-small", max_output_tokens=100),
        ),
        routes=(*plain.routes, Route("small", (Choice("small"),))),
        aliases=(*plain.aliases, Alias("vendor/model-c", "small")),
    )


@contextmanager
def running_rig(folder: Path, **settings: Any) -> Iterator[Rig]:
    """Start engine and worker, end them afterwards.

    Args:
        folder: Empty folder for the worker's files.
        settings: Instead of the usual `WorkerSettings`.
    """
    with running_engine() as engine:
        snapshot = rig_snapshot(folder, engine.port)
        with running_worker(folder, [engine.port], snapshot=snapshot, **settings) as worker:
            yield Rig(worker, engine)
