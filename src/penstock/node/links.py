"""The Unix socket on which workers and their agent talk, one connection a worker."""

import asyncio
from pathlib import Path
from typing import Protocol, TypeAlias

import msgspec

from penstock.contract.node import (
    AgentMessage,
    Applied,
    CheckHolds,
    Frames,
    FreeHolds,
    Hello,
    Inspected,
    MessageTooLongError,
    PermitsHeld,
    RefusedRequests,
    Rehashed,
    Returned,
    Stats,
    UsedAdapters,
    Want,
    WantAdapter,
    WantHolds,
    WorkerMessage,
    decode_worker_message,
    encode_message,
)
from penstock.contract.node_parts import PART_BYTES, Listing, split
from penstock.kit.streams import write_if_open
from penstock.node import log_events

Wish: TypeAlias = (
    Want | Returned | PermitsHeld | WantHolds | FreeHolds | CheckHolds | WantAdapter | UsedAdapters
)
"""What of limits, of money and of adapters workers say to their agent."""
HELLO_TIMEOUT_S = 5.0
_READ_BYTES = 256 * 1024


class Link:
    """One connection of a worker, which has said who it is."""

    def __init__(self, hello: Hello, writer: asyncio.StreamWriter) -> None:
        """Speak for the worker that sent `hello`, over `writer`."""
        self.hello = hello
        self._writer = writer

    def send(self, message: AgentMessage) -> None:
        """Send a message; it is lost when the connection is, and the worker says Hello again."""
        frame = encode_message(message)
        if isinstance(message, Listing) and len(frame) > PART_BYTES:
            for part in split(message):
                write_if_open(self._writer, encode_message(part))
        else:
            write_if_open(self._writer, frame)

    @property
    def is_closed(self) -> bool:
        """Whether the connection has ended: nothing arrives any more."""
        return self._writer.is_closing()

    def close(self) -> None:
        """End the connection."""
        self._writer.close()


class Listener(Protocol):
    """Who is told what workers say."""

    def on_hello(self, link: Link) -> None:
        """A worker has connected."""
        ...

    def on_stats(self, link: Link, stats: Stats) -> None:
        """A worker has reported its totals."""
        ...

    def on_applied(self, link: Link, applied: Applied) -> None:
        """A worker serves from a snapshot, or cannot."""
        ...

    def on_rehashed(self, link: Link, rehashed: Rehashed) -> None:
        """Keys were shown to a worker that are stored under an old pepper."""
        ...

    def on_refused(self, link: Link, refused: RefusedRequests) -> None:
        """A worker says which requests it refused."""
        ...

    def on_wish(self, link: Link, message: Wish) -> None:
        """A worker wants something that its agent has to give or to get, or does not need it."""
        ...

    def on_inspected(self, inspected: Inspected) -> None:
        """A worker answers a question about itself."""
        ...

    def on_closed(self, link: Link) -> None:
        """The connection has ended; the worker may come back."""
        ...


class Links:
    """Accepts workers.

    Args:
        path: Where the socket is made.
        listener: Told everything.
    """

    def __init__(self, path: Path, listener: Listener) -> None:
        """See the class."""
        self._path = path
        self._listener = listener
        self._server: asyncio.AbstractServer | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Listen. The caller holds the agent's lock, so what is left of a socket is nobody's.

        Raises:
            OSError: The socket cannot be made.
        """
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._accept, self._path)

    async def close(self) -> None:
        """Stop listening and end every connection."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._path.unlink(missing_ok=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer), name="link")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link: Link | None = None
        try:
            async with asyncio.timeout(HELLO_TIMEOUT_S) as deadline:
                frames = Frames()
                while content := await reader.read(_READ_BYTES):
                    for payload in frames.feed(content):
                        message = decode_worker_message(payload)
                        if link is None:
                            if not isinstance(message, Hello):
                                log_events.LINK_REFUSED.log(why="no hello first")
                                return
                            link = Link(message, writer)
                            deadline.reschedule(None)
                            self._listener.on_hello(link)
                        else:
                            self._dispatch(link, message)
        except TimeoutError:
            log_events.LINK_REFUSED.log(why="no hello in time")
        except (MessageTooLongError, msgspec.DecodeError) as error:
            log_events.LINK_BROKEN.log(why=f"{type(error).__name__}: {error}")
        except OSError:
            pass  # an end like any other
        finally:
            if link is not None:
                self._listener.on_closed(link)
            writer.close()

    def _dispatch(self, link: Link, message: WorkerMessage) -> None:
        match message:
            case Stats():
                self._listener.on_stats(link, message)
            case Applied():
                self._listener.on_applied(link, message)
            case Rehashed():
                self._listener.on_rehashed(link, message)
            case RefusedRequests():
                self._listener.on_refused(link, message)
            case (
                Want()
                | Returned()
                | PermitsHeld()
                | WantHolds()
                | FreeHolds()
                | CheckHolds()
                | WantAdapter()
                | UsedAdapters()
            ):
                self._listener.on_wish(link, message)
            case Inspected():
                self._listener.on_inspected(message)
            case Hello():
                log_events.HELLO_REPEATED.log(slot=message.slot, epoch=message.epoch)
