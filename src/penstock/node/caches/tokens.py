"""Prompts as tokens, as an engine reads them: its chat template, then its tokenizer.

Both are files of the model, as Hugging Face has them. The template is the operator's and runs in a
sandbox; what callers wrote is data to it. What cannot be told surely, pictures or several prompts
in one request, is nothing: whoever asks goes by what he knows himself.
"""

import json
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NoReturn

import msgspec
from jinja2 import Template, TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from penstock.node.caches.blocks import pack
from penstock.node.caches.pieces import Pieces

TOKENIZER: Final = "tokenizer.json"
_CONFIG: Final = "tokenizer_config.json"
_TEMPLATE: Final = "chat_template.jinja"
_NAMED = ("bos_token", "eos_token", "pad_token", "unk_token")
"""What templates name, each a text or an object with the text in `content`."""


class TokenizerError(Exception):
    """A tokenizer's files cannot be used; says why."""


class _Body(msgspec.Struct):
    """What of a request decides which tokens an engine reads."""

    messages: list[dict[str, Any]] | None = None
    prompt: str | list[int] | None = None
    tools: list[Any] | None = None
    documents: list[Any] | None = None
    cache_salt: str | None = None
    chat_template_kwargs: dict[str, Any] = {}  # msgspec makes a new one for each
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    add_special_tokens: bool | None = None
    chat_template: str | None = None


_decode_body = msgspec.json.Decoder(_Body).decode


class Prompts:
    """Turns the bodies of requests for one model into tokens.

    Args:
        folder: Where the model's files are.

    Raises:
        TokenizerError: They are not there, or make no sense.
    """

    def __init__(self, folder: Path) -> None:
        """See the class."""
        try:
            self._tokenizer: Any = Tokenizer.from_file(str(folder / TOKENIZER))
        except Exception as error:  # noqa: BLE001 - it raises nothing more special
            message = f"{folder / TOKENIZER}: {error}"
            raise TokenizerError(message) from None
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._pieces = Pieces(self._tokenizer)
        try:
            config = _read_config(folder / _CONFIG)
            self._names = {name: _text_of(config.get(name)) for name in _NAMED}
            self._template = _read_template(folder / _TEMPLATE, config)
        except (OSError, ValueError, TemplateError, msgspec.DecodeError) as error:
            message = f"{folder}: {error}"
            raise TokenizerError(message) from None

    def read(self, body: bytes) -> tuple[bytes, str | None] | None:
        """Return a prompt's tokens, packed, and the salt that keeps it apart; None when unknown.

        Args:
            body: Of a request in OpenAI's form, as the engine is sent it.
        """
        try:
            asked = _decode_body(body)
            tokens = self._tokens(asked)
        except Exception:  # noqa: BLE001 - a template does with what callers wrote what it likes
            return None
        return None if tokens is None else (tokens, asked.cache_salt)

    def _tokens(self, asked: _Body) -> bytes | None:
        if asked.messages is None:
            if isinstance(asked.prompt, str):
                return self._encode(
                    asked, asked.prompt, special=asked.add_special_tokens is not False
                )
            return None if asked.prompt is None else pack(asked.prompt)
        if self._template is None or asked.chat_template is not None:
            return None
        messages = [_plain(message) for message in asked.messages]
        if asked.continue_final_message or None in messages:
            return None
        text = self._template.render(
            {
                **self._names,
                "add_generation_prompt": asked.add_generation_prompt,
                "documents": asked.documents,
                "messages": messages,
                "tools": asked.tools,
                **asked.chat_template_kwargs,
            }
        )
        return self._encode(asked, text, special=bool(asked.add_special_tokens))

    def _encode(self, asked: _Body, text: str, *, special: bool) -> bytes:
        if special:
            return pack(self._tokenizer.encode(text, add_special_tokens=True).ids)
        return self._pieces.read(text, asked.cache_salt)


def _plain(message: dict[str, Any]) -> dict[str, Any] | None:
    """Return a message as templates expect it; None when it has more than text."""
    message = dict(message)
    content = message.get("content")
    if isinstance(content, list):
        found = [part.get("text") for part in content if isinstance(part, dict)]
        texts = [text for text in found if isinstance(text, str)]
        if len(texts) < len(content):
            return None
        message["content"] = "\n".join(texts)
    calls = message.get("tool_calls")
    if isinstance(calls, list):
        message["tool_calls"] = [_parsed(call) for call in calls]
    return message


def _parsed(call: Any) -> Any:
    """Return a call of a tool with its arguments as an object, as engines hand them over."""
    function = call["function"]
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        arguments = msgspec.json.decode(arguments or "{}")
    return {**call, "function": {**function, "arguments": arguments}}


def _read_config(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    config: dict[str, Any] = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    return config


def _text_of(named: Any) -> str:
    text = named.get("content") if isinstance(named, dict) else named
    return text if isinstance(text, str) else ""


def _read_template(path: Path, config: dict[str, Any]) -> Template | None:
    if path.exists():
        source: Any = path.read_text("utf-8")
    else:
        source = config.get("chat_template")
    if isinstance(source, list):  # several, by name
        named = {each.get("name"): each.get("template") for each in source}
        source = named.get("default")
    if not isinstance(source, str):
        return None
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = _now
    return environment.from_string(source)


def _to_json(value: Any, indent: int | None = None, **_: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)


def _now(form: str) -> str:
    return datetime.now().astimezone().strftime(form)
