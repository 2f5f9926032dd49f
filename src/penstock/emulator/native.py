"""The emulator as a server of Anthropic's Messages and of OpenAI's Responses.

As llama.cpp and Anthropic it tells the input at a message's beginning alone, as vLLM and SGLang
at its end again.
"""

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, Final

from penstock.emulator.generation import Operation
from penstock.emulator.streams import CREATED, Stream
from penstock.emulator.text import answer_text, token_text
from penstock.emulator.usage import reports_usage, usage_object
from penstock.emulator.wire import encode_json, named_event

MESSAGES: Final[frozenset[Operation]] = frozenset({"messages", "count_tokens"})
_MESSAGE_ID: Final = "msg_emulator"
_RESPONSE_ID: Final = "resp_emulator"
_BAD_REQUEST_BELOW: Final = 500
_TELL_TWICE: Final = frozenset({"vllm", "sglang"})
_FAILURE: Final = "emulated engine failure"


def messages_error(status: int, message: str) -> dict[str, object]:
    """Return an error object as Anthropic's API has it."""
    kind = "invalid_request_error" if status < _BAD_REQUEST_BELOW else "api_error"
    return {"type": "error", "error": {"type": kind, "message": message}}


class NativeStream(Stream, frozen=True):
    """An answer whose events have names, and which may be answered in one piece."""

    @abstractmethod
    def answer(self) -> bytes:
        """Return all of it as JSON."""

    def _counted(self, output_tokens: int) -> dict[str, Any] | None:
        """Return the usage as OpenAI's chats have it; None where none is told."""
        if not reports_usage(self.behavior.usage, is_asked=True):
            return None
        return usage_object(self.behavior, self.input_tokens, output_tokens)


class MessagesStream(NativeStream, frozen=True):
    """One of Anthropic's Messages."""

    def answer(self) -> bytes:
        """Return all of it as JSON."""
        text = {"type": "text", "text": answer_text(self.output_tokens)}
        return encode_json(self._message([text], self._stop(), self._usage(self.output_tokens)))

    def events(self) -> Iterator[bytes]:
        """Yield the events of the answer without faults."""
        begun = self._message([], None, self._usage(0))
        yield named_event({"type": "message_start", "message": begun})
        block = {"type": "text", "text": ""}
        yield named_event({"type": "content_block_start", "index": 0, "content_block": block})
        for position in range(self.output_tokens):
            delta = {"type": "text_delta", "text": token_text(position)}
            yield named_event({"type": "content_block_delta", "index": 0, "delta": delta})
        yield named_event({"type": "content_block_stop", "index": 0})
        habit, last = self.behavior.usage, named_event(self._last())
        if habit != "after_done":
            yield last
        if habit == "twice":
            yield last
        yield named_event({"type": "message_stop"})
        if habit == "after_done":
            yield last

    def _lead_count(self) -> int:
        return 3

    def _error_events(self) -> tuple[bytes, ...]:
        return (named_event(messages_error(500, _FAILURE)),)

    def _stop(self) -> str:
        return "end_turn" if self.finish_reason == "stop" else "max_tokens"

    def _last(self) -> dict[str, object]:
        delta = {"stop_reason": self._stop(), "stop_sequence": None}
        usage = self._usage(self.output_tokens)
        if usage and self.behavior.kind not in _TELL_TWICE:
            usage = {"output_tokens": usage["output_tokens"]}
        last: dict[str, object] = {"type": "message_delta", "delta": delta}
        return last if usage is None else last | {"usage": usage}

    def _usage(self, output_tokens: int) -> dict[str, Any] | None:
        counted = self._counted(output_tokens)
        if not counted:
            return counted
        usage = {
            "input_tokens": counted["prompt_tokens"],
            "output_tokens": counted["completion_tokens"],
        }
        cached = counted.get("prompt_tokens_details", {}).get("cached_tokens")
        if cached is not None:
            usage["cache_read_input_tokens"] = cached
            if self.behavior.cached_tokens >= 0 and isinstance(usage["input_tokens"], int):
                usage["input_tokens"] -= cached
        return usage

    def _message(
        self, content: list[dict[str, str]], stop: str | None, usage: dict[str, Any] | None
    ) -> dict[str, object]:
        return {
            "id": _MESSAGE_ID,
            "type": "message",
            "role": "assistant",
            "content": content,
            "model": self.generation.model,
            "stop_reason": stop,
            "stop_sequence": None,
        } | ({} if usage is None else {"usage": usage})


class ResponsesStream(NativeStream, frozen=True):
    """One of OpenAI's Responses."""

    def answer(self) -> bytes:
        """Return all of it as JSON."""
        return encode_json(self._whole())

    def events(self) -> Iterator[bytes]:
        """Yield the events of the answer without faults."""
        for number, payload in enumerate(self._payloads()):
            yield named_event(payload | {"sequence_number": number})

    def _payloads(self) -> Iterator[dict[str, object]]:
        begun = self._response("in_progress", [], None)
        yield {"type": "response.created", "response": begun}
        yield {"type": "response.in_progress", "response": begun}
        at: dict[str, object] = {"item_id": _MESSAGE_ID, "output_index": 0, "content_index": 0}
        item = self._item("in_progress", [])
        yield {"type": "response.output_item.added", "output_index": 0, "item": item}
        yield {"type": "response.content_part.added", "part": _part("")} | at
        for position in range(self.output_tokens):
            delta = token_text(position)
            yield {"type": "response.output_text.delta", "delta": delta, "logprobs": []} | at
        text = answer_text(self.output_tokens)
        yield {"type": "response.output_text.done", "text": text, "logprobs": []} | at
        yield {"type": "response.content_part.done", "part": _part(text)} | at
        item = self._item("completed", [_part(text)])
        yield {"type": "response.output_item.done", "output_index": 0, "item": item}
        whole = self._whole()
        yield {"type": f"response.{whole['status']}", "response": whole}

    def _lead_count(self) -> int:
        return 5

    def _error_events(self) -> tuple[bytes, ...]:
        if self.behavior.kind in _TELL_TWICE:
            return (named_event({"type": "error", "code": "server_error", "message": _FAILURE}),)
        error = {"code": "server_error", "message": _FAILURE}
        failed = self._response("failed", [], None) | {"error": error}
        return (named_event({"type": "response.failed", "response": failed}),)

    def _whole(self) -> dict[str, object]:
        status = "completed" if self.finish_reason == "stop" else "incomplete"
        item = self._item("completed", [_part(answer_text(self.output_tokens))])
        return self._response(status, [item], self._usage())

    def _usage(self) -> dict[str, Any] | None:
        counted = self._counted(self.output_tokens)
        if not counted:
            return counted
        cached = {"cached_tokens": 0, "cache_write_tokens": 0}
        thought = {"reasoning_tokens": 0}
        return {
            "input_tokens": counted["prompt_tokens"],
            "input_tokens_details": cached | counted.get("prompt_tokens_details", {}),
            "output_tokens": counted["completion_tokens"],
            "output_tokens_details": thought | counted.get("completion_tokens_details", {}),
            "total_tokens": counted["total_tokens"],
        }

    def _item(self, status: str, content: list[dict[str, object]]) -> dict[str, object]:
        return {
            "id": _MESSAGE_ID,
            "type": "message",
            "status": status,
            "role": "assistant",
            "content": content,
        }

    def _response(
        self, status: str, output: list[dict[str, object]], usage: dict[str, Any] | None
    ) -> dict[str, object]:
        is_cut = status == "incomplete"
        return {
            "id": _RESPONSE_ID,
            "object": "response",
            "created_at": CREATED,
            "status": status,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
            "instructions": None,
            "model": self.generation.model,
            "output": output,
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "usage": usage,
        }


def _part(text: str) -> dict[str, object]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


STREAMS: Final[dict[Operation, type[NativeStream]]] = {
    "messages": MessagesStream,
    "responses": ResponsesStream,
}
