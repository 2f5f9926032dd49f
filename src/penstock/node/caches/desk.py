"""Answers workers which endpoints have a prompt in their KV caches, over a Unix socket.

An answer that comes too late is none: workers wait for milliseconds. So what waited for longer is
answered with nothing at once, and prompts are turned into tokens by a thread beside the events.
"""

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import msgspec

from penstock.contract.caches import (
    Ask,
    FollowedModel,
    Found,
    decode_ask,
    encode_said,
)
from penstock.contract.node import Frames, MessageTooLongError
from penstock.kit.streams import write_if_open
from penstock.node import log_events
from penstock.node.caches.index import Index
from penstock.node.caches.tokens import Prompts, TokenizerError

MOST_WAITING: Final = 256
"""Questions that wait for their tokens; further ones are answered with nothing."""
PROVEN_S: Final = 600.0
"""How long a prompt that was found proves that a model's tokens are those of its engines: only then
is what they did not tell of taken to be gone. Another tokenizer would never find anything."""
_READ_BYTES = 256 * 1024
_UNSENT_BYTES = 1024 * 1024


class Desk:
    """Knows models' tokenizers, and what is in caches.

    Args:
        index: What is known of caches.
        answer_s: How long workers wait for an answer.
        now_s: The loop's time.
    """

    def __init__(self, index: Index, answer_s: float, now_s: Callable[[], float]) -> None:
        """See the class."""
        self._index = index
        self._answer_s = answer_s
        self._now_s = now_s
        self._thread = ThreadPoolExecutor(1, "tokens")
        self._models: dict[tuple[str, str], FollowedModel] = {}
        self._found_s: dict[FollowedModel, float] = {}
        """When a prompt was found last, by model."""
        self._prompts: dict[str, Prompts] = {}
        """By folder, those that can be used."""
        self._waiting: set[asyncio.Task[None]] = set()

    async def know(self, models: Iterable[FollowedModel]) -> None:
        """Answer for these models from now on, and for no others."""
        self._models = {(each.upstream, each.model): each for each in models}
        known = self._models.values()
        self._found_s = {each: at for each, at in self._found_s.items() if each in known}
        wanted = dict.fromkeys(each.tokenizer for each in self._models.values())
        self._prompts = {
            folder: self._prompts[folder] for folder in wanted if folder in self._prompts
        }
        loop = asyncio.get_running_loop()
        for folder in wanted:
            if folder not in self._prompts:
                try:
                    found = await loop.run_in_executor(self._thread, Prompts, Path(folder))
                except TokenizerError as error:
                    log_events.TOKENIZER_UNUSABLE.log(why=error)
                else:
                    self._prompts[folder] = found

    async def open(self, socket: Path) -> asyncio.Server:
        """Listen there."""
        await asyncio.to_thread(socket.unlink, missing_ok=True)
        return await asyncio.start_unix_server(self._serve, socket)

    def close(self) -> None:
        """Answer no more."""
        for task in self._waiting:
            task.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        frames = Frames()
        try:
            while content := await reader.read(_READ_BYTES):
                for payload in frames.feed(content):
                    self._take(decode_ask(payload), writer)
                if writer.transport.get_write_buffer_size() > _UNSENT_BYTES:
                    return
        except (msgspec.DecodeError, MessageTooLongError, OSError) as error:
            log_events.CACHES_NOT_ASKED_WELL.log(error=error)
        finally:
            writer.close()

    def _take(self, ask: Ask, writer: asyncio.StreamWriter) -> None:
        model = self._models.get((ask.upstream, ask.model))
        prompts = None if model is None else self._prompts.get(model.tokenizer)
        if model is None or prompts is None or len(self._waiting) >= MOST_WAITING:
            write_if_open(writer, encode_said(Found(ask.number)))
            return
        task = asyncio.create_task(self._answer(ask, model, prompts, writer))
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)

    async def _answer(
        self, ask: Ask, model: FollowedModel, prompts: Prompts, writer: asyncio.StreamWriter
    ) -> None:
        until_s = self._now_s() + self._answer_s

        def read() -> tuple[bytes, str | None] | None:
            return prompts.read(ask.body) if self._now_s() < until_s else None

        prompt = await asyncio.get_running_loop().run_in_executor(self._thread, read)
        found = Found(ask.number)
        if prompt is not None and self._now_s() < until_s:
            tokens, salt = prompt
            found = self._index.find(ask, tokens, adapter=model.adapter, salt=salt)
            found = self._prove(model, found)
        write_if_open(writer, encode_said(found))

    def _prove(self, model: FollowedModel, found: Found) -> Found:
        now_s = self._now_s()
        if found.endpoints:
            self._found_s[model] = now_s
        elif now_s - self._found_s.get(model, float("-inf")) > PROVEN_S:
            return Found(found.number)
        return found
