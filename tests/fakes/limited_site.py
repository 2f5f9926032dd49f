"""Two nodes with two workers each, one control plane: where limits and budgets have to hold."""

import asyncio
import itertools
import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from tests.fakes.production import MODEL, Production, administer, create

NODES = 2
WORKERS = 2
"""Of each node."""
ALIAS = "metered"
ENGINE = ("--output-tokens", "1000000", "--keep-alive-requests", "0")
"""It answers with as many tokens as it is asked for."""
_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Answer:
    """What a caller got."""

    status: int
    """0 when the connection ended first."""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: dict[str, Any] = field(default_factory=dict)
    ended_at_ms: float = field(default_factory=lambda: time.time() * 1_000)
    """When all of it had come, milliseconds since the Unix epoch."""

    @property
    def code(self) -> str:
        """The gateway's own code of an error, without its `err:gateway:`."""
        error = self.body.get("error", {})
        return str(error.get("penstock_code", "")).removeprefix("err:gateway:")

    @property
    def came_at_ms(self) -> int:
        """When the worker got it, milliseconds since the Unix epoch: its id tells."""
        return int(self.headers["x-request-id"].replace("-", "")[:12], 16)

    @property
    def tokens(self) -> tuple[int, int]:
        """Input and output tokens that the engine reported."""
        usage = self.body.get("usage", {})
        return usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0)


@dataclass(frozen=True)
class Site:
    """Everything that runs."""

    nodes: tuple[Production, ...]
    admin: httpx.Client
    probes: str
    """Id of a project for keys that nobody uses."""
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def control(self) -> Production:
        """The node whose processes the control plane is among."""
        return self.nodes[0]

    def create_key(self, project: str, name: str = "key", **members: Any) -> dict[str, Any]:
        """Create a key; it works a moment later."""
        return create(self.admin, "/keys", name=name, project_id=project, **members)

    def create_project(self, organization: str, name: str) -> str:
        """Create a project and return its id."""
        return str(create(self.admin, "/projects", name=name, organization_id=organization)["id"])

    def create_organization(self, name: str) -> str:
        """Create an organization and return its id."""
        return str(create(self.admin, "/organizations", name=name)["id"])

    async def chat_many(
        self, secrets: Sequence[str], count: int, *, nodes: Sequence[int] = (), **members: Any
    ) -> list[Answer]:
        """Send chats at once, each on a connection of its own, spread over keys and nodes."""
        nodes = nodes or range(len(self.nodes))
        chats = (
            self.chat(secrets[each % len(secrets)], node=nodes[each % len(nodes)], **members)
            for each in range(count)
        )
        return await asyncio.gather(*chats)

    async def chat(
        self,
        secret: str,
        *,
        node: int = 0,
        leave_after_s: float | None = None,
        headers: Mapping[str, str] | None = None,
        **members: Any,
    ) -> Answer:
        """Send a chat and return the answer.

        Args:
            secret: Of a key.
            node: Whom to ask; which of its workers answers is up to the system.
            leave_after_s: Hang up then, whatever came.
            headers: More of them.
            members: More of the body.
        """
        body = {"model": ALIAS, "messages": [{"role": "user", "content": "x"}]} | members
        content = json.dumps(body).encode()
        fields = {
            "host": "gateway",
            "authorization": f"Bearer {secret}",
            "content-length": str(len(content)),
            "connection": "close",
        } | dict(headers or {})
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        head = f"POST /v1/chat/completions HTTP/1.1\r\n{lines}\r\n".encode()
        try:
            async with asyncio.timeout(leave_after_s or _TIMEOUT_S):
                return await self._exchange(node, head + content)
        except TimeoutError:
            assert leave_after_s is not None, "no answer in time"
            return Answer(0)

    async def _exchange(self, node: int, content: bytes) -> Answer:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.nodes[node].api_port)
        except OSError:
            return Answer(0)
        try:
            writer.write(content)
            return parse_answer(await reader.read())
        except OSError:
            return Answer(0)
        finally:
            writer.transport.abort()

    async def until_told(self) -> None:
        """Wait until all workers know everything that was changed so far.

        Nodes learn of changes in their order: who knows a key that is made now knows the rest.
        """
        secret = str(self.create_key(self.probes, str(next(self._numbers)))["secret"])
        in_a_row = 0
        async with asyncio.timeout(_TIMEOUT_S):
            while in_a_row < 5:
                answers = await self.chat_many([secret], 8, model="no-such-model")
                is_known = {answer.status for answer in answers} == {404}
                in_a_row = in_a_row + 1 if is_known else 0


def parse_answer(raw: bytes) -> Answer:
    """Return an answer from the bytes of a connection that has ended."""
    head, found, body = raw.partition(b"\r\n\r\n")
    if not found:
        return Answer(0)
    start, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
    if len(body) < int(headers.get("content-length", 0)):
        return Answer(0)
    is_json = headers.get("content-type", "").startswith("application/json")
    return Answer(int(start.split(" ", 2)[1]), headers, json.loads(body) if is_json else {})


def statuses(answers: Sequence[Answer]) -> Counter[int]:
    """Count answers by status."""
    return Counter(answer.status for answer in answers)


def most_in_window(answers: Sequence[Answer], window_s: float, *, since_s: float = 0.0) -> int:
    """Return the most that were let in within any stretch of a window, for certain.

    When a request was let in is known to be between its coming and its answer: so those count
    that both came and were answered within the stretch, however busy the machine is.

    Args:
        answers: Of requests that a limit bears on.
        window_s: The limit's.
        since_s: Looks at those that came later only, seconds since the Unix epoch.
    """
    let_in = [answer for answer in answers if answer.status == 200]
    let_in = [answer for answer in let_in if answer.came_at_ms >= since_s * 1_000]
    most = 0
    for first in let_in:
        begin_ms, end_ms = first.came_at_ms, first.came_at_ms + window_s * 1_000
        within = (
            begin_ms <= answer.came_at_ms and answer.ended_at_ms <= end_ms for answer in let_in
        )
        most = max(most, sum(within))
    return most


def most_at_once(answers: Sequence[Answer], took_s: float) -> int:
    """Return the most that were in flight at any moment, for certain.

    Whoever was let in was so before the last `took_s` of their time, and stayed beyond the first.

    Args:
        answers: Of requests that a limit bears on.
        took_s: What the engine took for each of them, at least.
    """
    took_ms = took_s * 1_000
    let_in = [answer for answer in answers if answer.status == 200]
    spans = [(answer.ended_at_ms - took_ms, answer.came_at_ms + took_ms) for answer in let_in]
    return max((sum(a <= begin < b for a, b in spans) for begin, _ in spans), default=0)


@contextmanager
def running_site(
    folder: Path,
    dsn: str = "",
    *,
    agent: Mapping[str, Any] | None = None,
    nodes: int = NODES,
    engine: Sequence[str] = (),
) -> Iterator[Site]:
    """Run everything, with an alias that counts, for as long as the context lasts.

    Args:
        folder: Takes the data folders.
        dsn: Address of a database; SQLite's when it is empty.
        agent: More of the agents' settings.
        nodes: How many.
        engine: More of the engine's command line.
    """
    with ExitStack() as stack:
        options: dict[str, Any] = {"workers": WORKERS, "agent": agent}
        first = Production(folder / "node0", dsn, engine=(*ENGINE, *engine), **options)
        stack.callback(first.stop)
        first.start()
        everything = [first]
        for number in range(1, nodes):
            other = Production(folder / f"node{number}", dsn, beside=first, **options)
            stack.callback(other.stop)
            other.start_node()
            everything.append(other)
        admin = stack.enter_context(administer(first))
        _create_alias(first, admin)
        organization = create(admin, "/organizations", name="probes")["id"]
        project = create(admin, "/projects", name="probes", organization_id=organization)
        yield Site(tuple(everything), admin, str(project["id"]))


def _create_alias(production: Production, admin: httpx.Client) -> None:
    names = {"name": ALIAS}
    upstream = create(
        admin,
        "/upstreams",
        **names,
        provider="emulator",
        endpoints=[production.url("engine")],
        forward_headers=["x-emulator-*"],
    )
    deployment = create(admin, "/deployments", **names, upstream_id=upstream["id"], model=MODEL)
    choices = [{"deployment_id": deployment["id"]}]
    route = create(admin, "/routes", **names, choices=choices)
    create(admin, "/aliases", **names, route_id=route["id"], is_open=True)
