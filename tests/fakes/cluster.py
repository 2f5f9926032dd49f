"""An API server of Kubernetes, as far as lists and watches go, and what a test has it do.

As a real one: all pages of a list are of one moment and their tokens may expire, watches end by
themselves when their time is over, lists are compressed for those who take that, it is too busy at
times, and it does not know tokens that were renewed elsewhere.

Source: kubernetes.io, "Kubernetes API Concepts", "API Priority and Fairness".
"""

import asyncio
import contextlib
import gzip
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec

Object = dict[str, Any]
_BROKEN = "the connection is broken"
TOKEN = "canary-service-account-token"


class FakeCluster(httpx.AsyncBaseTransport):
    """Collections by path. It knows no selectors: tests look at how they were asked for."""

    def __init__(self) -> None:
        """Start with nothing."""
        self.objects: dict[str, dict[str, Object]] = {}
        self.version = 10
        self.asked: list[httpx.QueryParams] = []
        self.lists = 0
        self.status = 200
        """Of every answer from now on; 200 for the usual ones."""
        self.page = 2
        """Objects of a page of a list."""
        self.page_s = 0.0
        """How long a list takes for a page."""
        self.torn = False
        """Whether connections break in the middle of the next event."""
        self.token = TOKEN
        """What it has to be shown."""
        self.busy = 0
        """How many of the next requests it is too busy for."""
        self.expired_pages = 0
        """How many of the next pages behind the first have been forgotten."""
        self.is_silent = False
        """Whether watches say nothing any more, not even that they end."""
        self.refused: list[int] = []
        """Statuses of answers that were no success."""
        self._pages: dict[str, tuple[str, list[Object]]] = {}
        """What is left of lists, and of which version they are, by the token of the next page."""
        self._history: list[tuple[str, int, str, Object]] = []
        self._gone_before = 0
        self._news = asyncio.Condition()
        self._drop = 0
        self._serving: set[asyncio.Task[None]] = set()

    async def put(self, path: str, item: Object) -> None:
        """Add or change an object."""
        known = self.objects.setdefault(path, {})
        name = item["metadata"]["name"]
        kind = "MODIFIED" if name in known else "ADDED"
        known[name] = await self._tell(path, kind, item)

    async def delete(self, path: str, name: str) -> None:
        """Remove an object, if it is there."""
        item = self.objects.get(path, {}).pop(name, None)
        if item is not None:
            await self._tell(path, "DELETED", item)

    async def bookmark(self, path: str) -> None:
        """Tell watches which version they have reached."""
        await self._tell(path, "BOOKMARK", {"metadata": {}})

    async def fail_watches(self, code: int) -> None:
        """End all watches with an error."""
        await self._tell("", "ERROR", {"kind": "Status", "code": code})

    async def forget(self) -> None:
        """Forget all older versions: who has to go on from one is told 410."""
        self._gone_before = self.version
        await self.drop()

    async def drop(self) -> None:
        """Break all connections."""
        async with self._news:
            self._drop += 1
            self._news.notify_all()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer."""
        params, path = request.url.params, request.url.path
        self.asked.append(params)
        if request.headers["authorization"] != f"Bearer {self.token}":
            return self._refuse(401)
        if self.busy:
            self.busy -= 1
            return self._refuse(429, {"retry-after": "3"})
        if self.status != 200:
            return self._refuse(self.status)
        if "watch" not in params:
            await asyncio.sleep(self.page_s)
            return self._list(path, request)
        version = int(params["resourceVersion"])
        if version < self._gone_before:
            return self._refuse(410)
        loop = asyncio.get_running_loop()
        until_s = loop.time() + int(params["timeoutSeconds"])
        return httpx.Response(200, stream=_Stream(self._watch(path, version, until_s)))

    def _refuse(self, code: int, headers: dict[str, str] | None = None) -> httpx.Response:
        self.refused.append(code)
        status = {"kind": "Status", "metadata": {}, "status": "Failure", "code": code}
        return httpx.Response(code, json=status, headers=headers)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer on a connection, which carries one request."""
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            with contextlib.suppress(httpx.ReadError, OSError):
                await self._serve(reader, writer)
        finally:
            self._serving.discard(task)
            writer.transport.abort()  # a farewell by TLS would wait for the other end

    async def end(self) -> None:
        """End all connections."""
        tasks = [*self._serving]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.05)  # what was aborted is closed in the coming turns

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
        target = head[0].split()[1]
        fields = [
            (name, value.strip()) for name, _, value in (x.partition(":") for x in head[1:-1])
        ]
        request = httpx.Request("GET", f"http://cluster.invalid{target}", headers=fields)
        answer = await self.handle_async_request(request)
        status = f"HTTP/1.1 {answer.status_code} Any\r\nconnection: close\r\n"
        for name in {"content-encoding", "retry-after"} & answer.headers.keys():
            status += f"{name}: {answer.headers[name]}\r\n"
        writer.write(f"{status}transfer-encoding: chunked\r\n\r\n".encode())
        assert isinstance(answer.stream, httpx.AsyncByteStream)
        async for piece in answer.stream:
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    def _list(self, path: str, request: httpx.Request) -> httpx.Response:
        token = request.url.params.get("continue")
        if token is None:
            self.lists += 1
            version, items = str(self.version), [*self.objects.get(path, {}).values()]
        elif self.expired_pages:
            self.expired_pages -= 1
            return self._refuse(410)
        else:
            version, items = self._pages.pop(token)
        metadata: Object = {"resourceVersion": version}
        if len(items) > self.page:
            metadata["continue"] = f"page-{len(self.asked)}"
            metadata["remainingItemCount"] = len(items) - self.page
            self._pages[metadata["continue"]] = version, items[self.page :]
        # A real one says null where there is nothing.
        page = {"kind": "List", "metadata": metadata, "items": items[: self.page] or None}
        content = msgspec.json.encode(page)
        if "gzip" not in request.headers.get("accept-encoding", ""):
            return httpx.Response(200, content=content)
        headers = {"content-encoding": "gzip"}
        return httpx.Response(200, content=gzip.compress(content), headers=headers)

    async def _watch(self, path: str, version: int, until_s: float) -> AsyncIterator[bytes]:
        dropped = self._drop
        while True:
            try:
                async with asyncio.timeout_at(until_s), self._news:
                    while self._drop == dropped and (
                        self.is_silent or self._find(path, version) is None
                    ):
                        await self._news.wait()
            except TimeoutError:
                if self.is_silent:
                    await asyncio.Event().wait()  # its farewell is lost, too
                return
            found = self._find(path, version)
            if self._drop != dropped or found is None:
                raise httpx.ReadError(_BROKEN)
            version, kind, item = found
            text = msgspec.json.encode({"type": kind, "object": item}) + b"\n"
            if self.torn:
                self.torn = False
                yield text[:-5]
                raise httpx.ReadError(_BROKEN)
            yield text[:7]
            yield text[7:]
            if kind == "ERROR":
                return

    def _find(self, path: str, version: int) -> tuple[int, str, Object] | None:
        for about, at, kind, item in self._history:
            if at > version and about in {path, ""}:
                return at, kind, item
        return None

    async def _tell(self, path: str, kind: str, item: Object) -> Object:
        self.version += 1
        version = {"resourceVersion": str(self.version)}
        item = item | {"metadata": item.get("metadata", {}) | version}
        async with self._news:
            self._history.append((path, self.version, kind, item))
            self._news.notify_all()
        return item


class _Stream(httpx.AsyncByteStream):
    """A body that comes piece by piece."""

    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        self._pieces = pieces

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._pieces
