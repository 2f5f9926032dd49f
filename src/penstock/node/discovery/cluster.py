"""What the API server of a Kubernetes cluster says of a collection of objects, kept up to date.

It is listed once, then watched. A watch that ends, also in the middle, goes on from the last
version that was seen; when the server cannot do that (410), a new list replaces all.

Source: kubernetes.io, "Kubernetes API Concepts", "Efficient detection of changes".
"""

import asyncio
import os
import ssl
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import NamedTuple

import httpx
import msgspec

from penstock.kit.tls import verify_for
from penstock.node.backoff import doubling_s
from penstock.node.discovery.settings import DiscoverySettings

WATCH_S = 60
"""How long a watch lasts; then it is renewed, which shows that the server is there."""
MAX_OBJECTS = 10_000
_PAGE = 500
_PAGE_BYTES = 64 * 1024 * 1024
_EVENT_BYTES = 4 * 1024 * 1024
_FIRST_S, _LAST_S = 0.5, 30.0
_TIMEOUT = httpx.Timeout(10.0, read=WATCH_S + 10.0)
_GONE = 410
_BUSY = 429
_BUSY_TRIES = 4
"""How often it is asked while it says that it is too busy; then that is a fault."""


class Metadata(msgspec.Struct, frozen=True, rename="camel"):
    """What all objects have, and lists."""

    name: str = ""
    resource_version: str = ""
    deletion_timestamp: str | None = None
    next_page: str = msgspec.field(name="continue", default="")


class _List(msgspec.Struct, frozen=True):
    metadata: Metadata
    items: list[msgspec.Raw] | None = None


class _Event(msgspec.Struct, frozen=True):
    type: str
    object: msgspec.Raw


class _Named(msgspec.Struct, frozen=True):
    metadata: Metadata = Metadata()
    code: int = 0
    """Of the status in an event of an error."""


class Collection(NamedTuple):
    """Some objects of a cluster."""

    path: str
    """As `/api/v1/namespaces/models/pods`."""
    params: dict[str, str]
    """Which of them."""


class Seen(NamedTuple):
    """What was learned of a collection just now."""

    objects: dict[str, msgspec.Raw] | None
    """All of it, by name; None when that is not known."""
    fault: str = ""


class ClusterError(Exception):
    """The API server did not answer, or with what cannot be used."""


class _LostError(ClusterError):
    """The connection failed, or broke."""


class _GoneError(Exception):
    """The server cannot go on from the last version that was seen."""


class Cluster:
    """The API server.

    Args:
        settings: Where it is, and what it is shown; as pods are told when they do not say.
        random: Returns a number in [0, 1): nodes do not come back in step.
        transport: Replaces the network in tests.
        timeout: How long a connection, or what comes on it, is waited for.
    """

    def __init__(
        self,
        settings: DiscoverySettings,
        random: Callable[[], float],
        transport: httpx.AsyncBaseTransport | None = None,
        *,
        timeout: httpx.Timeout = _TIMEOUT,
    ) -> None:
        """See the class."""
        self._settings = settings
        self._random = random
        self._transport = transport
        self._timeout = timeout

    async def follow(self, collection: Collection) -> AsyncGenerator[Seen, None]:
        """Yield a collection whenever something was said of it, and faults."""
        failures = 0
        while True:
            try:
                async with (
                    self._connect() as client,
                    aclosing(self._list_and_watch(client, collection)) as states,
                ):
                    async for objects in states:
                        failures = 0
                        yield Seen(objects)
            except (ClusterError, OSError, ValueError) as error:
                failures += 1
                yield Seen(None, str(error) or type(error).__name__)
            except _GoneError:
                failures = 0
            pause_s = doubling_s(max(failures, 1), first_s=_FIRST_S, most_s=_LAST_S)
            await asyncio.sleep(pause_s * (1 - self._random() / 2))

    async def _list_and_watch(
        self, client: httpx.AsyncClient, collection: Collection
    ) -> AsyncGenerator[dict[str, msgspec.Raw], None]:
        """Yield the objects after each change; returns never.

        Raises:
            ClusterError: A watch could not begin, or the list failed.
            _GoneError: It has to be listed anew.
        """
        objects, version = await self._list(client, collection)
        yield objects
        while True:
            began_s = asyncio.get_running_loop().time()
            async with aclosing(self._watch(client, collection, version)) as events:
                async for event in events:
                    version = _apply(event, objects) or version
                    yield objects
            # One that breaks off at once is not begun again and again without a pause.
            rest_s = began_s + _FIRST_S - asyncio.get_running_loop().time()
            await asyncio.sleep(max(rest_s, 0.0))
            yield objects

    async def _list(
        self, client: httpx.AsyncClient, collection: Collection
    ) -> tuple[dict[str, msgspec.Raw], str]:
        objects: dict[str, msgspec.Raw] = {}
        params = collection.params | {"limit": str(_PAGE)}
        while True:
            content = bytearray()
            async with aclosing(self._read(client, collection.path, params)) as pieces:
                async for piece in pieces:
                    content += piece
                    _check_size(len(content), _PAGE_BYTES)
            try:
                page = msgspec.json.decode(bytes(content), type=_List)
                for item in page.items or ():
                    objects[_name(item)] = item
            except msgspec.DecodeError as error:
                raise ClusterError(str(error)) from None
            if len(objects) > MAX_OBJECTS:
                message = f"there are more than {MAX_OBJECTS} objects"
                raise ClusterError(message)
            if not page.metadata.next_page:
                return objects, page.metadata.resource_version
            params["continue"] = page.metadata.next_page

    async def _watch(
        self, client: httpx.AsyncClient, collection: Collection, version: str
    ) -> AsyncGenerator[_Event, None]:
        """Yield events until the watch ends, or the connection does once it has begun."""
        params = collection.params | {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(WATCH_S),
        }
        rest, has_begun = b"", False
        try:
            async with aclosing(self._read(client, collection.path, params)) as pieces:
                async for piece in pieces:
                    has_begun = True
                    *lines, rest = (rest + piece).split(b"\n")
                    _check_size(len(rest), _EVENT_BYTES)
                    for text in filter(None, lines):
                        yield msgspec.json.decode(text, type=_Event)
        except msgspec.DecodeError as error:
            raise ClusterError(str(error)) from None
        except _LostError:
            if not has_begun:
                raise

    async def _read(
        self, client: httpx.AsyncClient, path: str, params: dict[str, str]
    ) -> AsyncGenerator[bytes, None]:
        """Yield an answer as it comes; a server that is too busy is asked again when it says."""
        try:
            for tries_left in reversed(range(_BUSY_TRIES)):
                headers = {"authorization": f"Bearer {self._read_token()}"}
                headers["accept"] = "application/json"
                async with client.stream("GET", path, params=params, headers=headers) as answer:
                    if answer.is_success:
                        yield b""  # it has begun
                        async for piece in answer.aiter_bytes():
                            yield piece
                        return
                    if answer.status_code == _GONE:
                        raise _GoneError
                    if answer.status_code != _BUSY or not tries_left:
                        message = f"the API server answers {answer.status_code} to {path}"
                        raise ClusterError(message)
                await asyncio.sleep(_pause_s(answer) * (1 + self._random() / 2))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            message = f"the API server does not answer: {type(error).__name__}"
            raise _LostError(message) from None

    def _read_token(self) -> str:
        """Return what the server is shown; read each time, as kubelets renew it every hour."""
        return Path(self._settings.kubernetes_token_file).read_text(encoding="ascii").strip()

    def _connect(self) -> httpx.AsyncClient:
        url = self._settings.kubernetes_url or _url_of_pods()
        verify = verify_for(url)
        if verify is True and self._transport is None:
            verify = ssl.create_default_context(cafile=self._settings.kubernetes_ca_file)
        return httpx.AsyncClient(
            base_url=url,
            timeout=self._timeout,
            trust_env=False,
            transport=self._transport,
            verify=verify,
        )


def _apply(event: _Event, objects: dict[str, msgspec.Raw]) -> str:
    """Make a change; return the version that is reached by it, "" when it says none.

    Raises:
        _GoneError, ClusterError: It is an error: whatever it is, a list shows what is true.
    """
    try:
        named = msgspec.json.decode(event.object, type=_Named)
    except msgspec.DecodeError as error:
        raise ClusterError(str(error)) from None
    match event.type:
        case "ADDED" | "MODIFIED":
            if named.metadata.name not in objects and len(objects) >= MAX_OBJECTS:
                message = f"there are more than {MAX_OBJECTS} objects"
                raise ClusterError(message)
            objects[named.metadata.name] = event.object
        case "DELETED":
            objects.pop(named.metadata.name, None)
        case "BOOKMARK":
            pass
        case _ if named.code == _GONE:
            raise _GoneError
        case _:
            message = f"the watch says {event.type}, code {named.code}"
            raise ClusterError(message)
    return named.metadata.resource_version


def _pause_s(answer: httpx.Response) -> float:
    """Return how long a server wants to be left alone; not how long is for it alone to say."""
    seconds = answer.headers.get("retry-after", "")
    asked_s = float(seconds) if seconds.isascii() and seconds.isdigit() else _FIRST_S
    return min(max(asked_s, _FIRST_S), _LAST_S)


def _name(item: msgspec.Raw) -> str:
    return msgspec.json.decode(item, type=_Named).metadata.name


def _check_size(size_bytes: int, most: int) -> None:
    if size_bytes > most:
        message = f"the API server says more than {most} bytes at once"
        raise ClusterError(message)


def _url_of_pods() -> str:
    host, port = (
        os.environ.get("KUBERNETES_SERVICE_HOST"),
        os.environ.get("KUBERNETES_SERVICE_PORT"),
    )
    if not host or not port:
        message = "this is no pod, and no discovery.kubernetes_url is set"
        raise ClusterError(message)
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
