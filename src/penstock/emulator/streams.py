"""A streamed answer as a sequence of events, and as the steps in which it is sent."""

from collections.abc import Iterator
from functools import lru_cache
from itertools import chain, islice, repeat

import msgspec

from penstock.emulator.generation import Generation
from penstock.emulator.kinds import error_object
from penstock.emulator.settings import Behavior
from penstock.emulator.text import WORDS, token_text
from penstock.emulator.usage import reports_usage, usage_object
from penstock.emulator.wire import DONE_EVENT, LAST_CHUNK, chunk, event

CREATED = 1_750_000_000
"""`created` of every answer: answers to equal requests are equal bytes."""
CHAT_ID = "chatcmpl-emulator"
COMPLETION_ID = "cmpl-emulator"

_BROKEN_EVENT = chunk(b'data: {"id":"chatcmpl-emulator","object":"chat.compl\n\n')


class Stream(msgspec.Struct, frozen=True):
    """A streamed answer; it can be read any number of times."""

    generation: Generation
    behavior: Behavior
    input_tokens: int
    output_tokens: int
    """Of each choice."""
    finish_reason: str

    def events(self) -> Iterator[bytes]:
        """Yield the events of the answer without faults, `[DONE]` the last but for a late usage.

        Each is one chunk of a chunked body, whose last chunk is not among them.
        """
        choices = range(self.generation.choices)
        if self.generation.operation == "chat":
            role = {"role": "assistant", "content": ""}
            yield from (self._event(choice, role, None, 0) for choice in choices)
        yield from self._token_events()
        for choice in choices:
            yield self._event(choice, {}, self.finish_reason, self.output_tokens)
        usage = self.final_usage()
        habit = self.behavior.usage
        if usage and habit != "after_done":
            yield usage
        if usage and habit == "twice":
            yield usage
        yield DONE_EVENT
        if usage and habit == "after_done":
            yield usage

    def steps(self) -> Iterator[bytes]:
        """Yield what is sent at once, faults included.

        The first step has the first token of every choice, each further one their next, and the
        last also the end of the stream.
        """
        choices = self.generation.choices
        sizes: chain[int | None] = chain(
            (self._lead_count(),) if self.output_tokens > 1 else (),
            repeat(choices, max(self.output_tokens - 2, 0)),
            (None,),
        )
        chunks = self._faulty_chunks()
        for size in sizes:
            step = next(chunks, b"") if size == 1 else b"".join(islice(chunks, size))
            if not step:
                return
            yield step

    def _lead_count(self) -> int:
        """Return how many events there are up to the first token, of every choice."""
        choices = self.generation.choices
        return 2 * choices if self.generation.operation == "chat" else choices

    def dripping_steps(self) -> Iterator[bytes]:
        """Yield the answer with the fault `slow`: whole events before the fault, then drops."""
        chunks = chain(self.events(), (LAST_CHUNK,))
        whole = b"".join(islice(chunks, self.behavior.fault_after))
        if whole:
            yield whole
        yield from drops(b"".join(chunks), self.behavior.drip_bytes)

    def reaches_fault(self) -> bool:
        """Return whether the stream is long enough for the fault to come."""
        after = self.behavior.fault_after
        return next(islice(self.events(), after, None), None) is not None

    def final_usage(self) -> bytes | None:
        """Return the event with the usage of the whole answer, None where none is reported."""
        generation = self.generation
        if not reports_usage(self.behavior.usage, is_asked=generation.asks_usage):
            return None
        total = self.output_tokens * generation.choices
        usage = usage_object(self.behavior, self.input_tokens, total)
        return event(self._payload() | {"choices": [], "usage": usage})

    def _faulty_chunks(self) -> Iterator[bytes]:
        """Yield the events up to the fault, and what the fault makes of the rest."""
        events = self.events()
        fault = self.behavior.fault
        if fault == "none":
            yield from events
            yield LAST_CHUNK
            return
        yield from islice(events, self.behavior.fault_after)
        following = next(events, None)
        if following is None:
            yield LAST_CHUNK
        elif fault == "truncate":
            yield following[: len(following) // 2]
        elif fault == "error_in_200":
            yield from (*self._error_events(), LAST_CHUNK)
        elif fault == "malformed":
            yield from chain((_BROKEN_EVENT, following), events, (LAST_CHUNK,))

    def _error_events(self) -> tuple[bytes, ...]:
        error = error_object(self.behavior.kind, 500, "emulated engine failure")
        return event(error), DONE_EVENT

    def _token_events(self) -> Iterator[bytes]:
        choices = range(self.generation.choices)
        operation, model = self.generation.operation, self.generation.model
        if self.generation.is_usage_continuous:
            for position in range(self.output_tokens):
                for choice in choices:
                    yield self._event(choice, _content(operation, position), None, position + 1)
            return
        frames = [_token_frames(operation, model, choice) for choice in choices]
        first = [_token_frame(operation, model, choice, 0) for choice in choices]
        yield from first[: self.output_tokens * len(choices)]
        for position in range(1, self.output_tokens):
            for words in frames:
                yield words[position % len(WORDS)]

    def _event(
        self, choice: int, delta: dict[str, str], finish_reason: str | None, tokens: int
    ) -> bytes:
        payload = self._payload()
        payload["choices"] = [_choice(self.generation.operation, choice, delta, finish_reason)]
        if self.generation.is_usage_continuous and self.behavior.usage != "never":
            payload["usage"] = usage_object(self.behavior, self.input_tokens, tokens)
        return event(payload)

    def _payload(self) -> dict[str, object]:
        return _payload(self.generation.operation, self.generation.model)


def drops(content: bytes, size: int) -> Iterator[bytes]:
    """Yield the content in pieces of `size` bytes, the last one maybe shorter."""
    return (content[start : start + size] for start in range(0, len(content), size))


def _payload(operation: str, model: str) -> dict[str, object]:
    if operation == "chat":
        return {
            "id": CHAT_ID,
            "object": "chat.completion.chunk",
            "created": CREATED,
            "model": model,
        }
    return {
        "id": COMPLETION_ID,
        "object": "text_completion",
        "created": CREATED,
        "model": model,
    }


def _content(operation: str, position: int) -> dict[str, str]:
    return {"content" if operation == "chat" else "text": token_text(position)}


def _choice(
    operation: str, choice: int, delta: dict[str, str], finish_reason: str | None
) -> dict[str, object]:
    said: dict[str, object] = (
        {"delta": delta} if operation == "chat" else {"text": delta.get("text", "")}
    )
    return {"index": choice, **said, "logprobs": None, "finish_reason": finish_reason}


def _token_frame(operation: str, model: str, choice: int, position: int) -> bytes:
    choices = [_choice(operation, choice, _content(operation, position), None)]
    return event(_payload(operation, model) | {"choices": choices})


@lru_cache(maxsize=256)
def _token_frames(operation: str, model: str, choice: int) -> tuple[bytes, ...]:
    """Return the event of every word: thousands of streams share these bytes."""
    count = len(WORDS)
    return tuple(
        _token_frame(operation, model, choice, count + position) for position in range(count)
    )
