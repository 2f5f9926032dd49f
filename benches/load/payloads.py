"""The requests that the clients send: the same bytes to every gateway."""

import json
from dataclasses import dataclass

from benches.load.servers import MODEL

PATH = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Request:
    """One request, for any of the clients."""

    headers: dict[str, str]
    body: str

    def to_bytes(self) -> bytes:
        """Return it as it goes over the wire, to keep the connection alive."""
        lines = [f"POST {PATH} HTTP/1.1", "host: 127.0.0.1", f"content-length: {len(self.body)}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        return ("\r\n".join(lines) + "\r\n\r\n" + self.body).encode()


def _headers(key: str) -> dict[str, str]:
    return {"content-type": "application/json", "authorization": f"Bearer {key}"}


def chat(key: str, body_bytes: int) -> Request:
    """Return a plain chat request with a body of exactly `body_bytes` (>= 100) bytes."""
    frame = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": ""}]})
    text = "x" * (body_bytes - len(frame))
    return Request(_headers(key), frame.replace('""', f'"{text}"'))


def streamed_chat(key: str, *, chunks: int, gap_ms: int) -> Request:
    """Return a chat request whose answer is `chunks` tokens, one each `gap_ms` milliseconds.

    It asks for the usage chunk, so that a gateway that hides unasked usage relays it too.
    """
    headers = _headers(key) | {
        "x-emulator-ttft-ms": "0",
        "x-emulator-itl-ms": str(gap_ms),
        "x-emulator-output-tokens": str(chunks),
    }
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "Say something long."}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    return Request(headers, json.dumps(body))
