"""What a request body asks for, read strictly: the emulator tells bad input from good."""

from typing import Annotated, Any, Literal

import msgspec

CHARACTERS_PER_TOKEN = 4
MAX_CHOICES = 128

Operation = Literal["chat", "completions", "embeddings", "messages", "count_tokens", "responses"]

_Cap = Annotated[int, msgspec.Meta(ge=0)]
_Choices = Annotated[int, msgspec.Meta(ge=1, le=MAX_CHOICES)]


class BadBodyError(Exception):
    """The body is not what the operation takes; the message says where."""


class Generation(msgspec.Struct, frozen=True, kw_only=True):
    """What the caller wants."""

    operation: Operation
    model: str
    input_tokens: int
    """By the size of the input, >= 1."""
    max_output_tokens: int | None = None
    choices: int = 1
    """1..128; for completions, of all prompts together."""
    is_stream: bool = False
    asks_usage: bool = False
    """`stream_options.include_usage`."""
    is_usage_continuous: bool = False
    """`stream_options.continuous_usage_stats`: cumulative usage in every chunk."""
    inputs: tuple[str, ...] = ()
    """What to embed, in order, as text of any kind."""
    is_base64: bool = False
    """Whether vectors are wanted as base64."""
    dimensions: int | None = None


class _Part(msgspec.Struct):
    text: str = ""


class _Message(msgspec.Struct):
    role: str
    content: str | list[_Part] | None = None


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = False
    continuous_usage_stats: bool | None = False


class _ChatBody(msgspec.Struct):
    model: str
    messages: Annotated[list[_Message], msgspec.Meta(min_length=1)]
    max_tokens: _Cap | None = None
    max_completion_tokens: _Cap | None = None
    n: _Choices | None = None
    stream: bool | None = False
    stream_options: _StreamOptions | None = None


class _CompletionBody(msgspec.Struct):
    model: str
    prompt: str | Annotated[list[Any], msgspec.Meta(min_length=1)]
    max_tokens: _Cap | None = None
    n: _Choices | None = None
    stream: bool | None = False
    stream_options: _StreamOptions | None = None


class _EmbeddingBody(msgspec.Struct):
    model: str
    input: str | Annotated[list[Any], msgspec.Meta(min_length=1)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, msgspec.Meta(ge=1, le=65_536)] | None = None


class _Block(msgspec.Struct):
    text: str = ""
    content: Any = None


_Blocks = str | list[_Block]


class _Turn(msgspec.Struct):
    role: str
    content: _Blocks


class _CountBody(msgspec.Struct):
    model: str
    messages: Annotated[list[_Turn], msgspec.Meta(min_length=1)]
    system: _Blocks | None = None


class _MessagesBody(_CountBody, kw_only=True):
    max_tokens: Annotated[int, msgspec.Meta(ge=1)]
    stream: bool | None = False


class _Item(msgspec.Struct):
    content: str | list[_Part] | None = None
    output: str | None = None


class _ResponsesBody(msgspec.Struct):
    model: str
    input: str | Annotated[list[_Item], msgspec.Meta(min_length=1)]
    instructions: str | None = None
    max_output_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    stream: bool | None = False


_chat = msgspec.json.Decoder(_ChatBody)
_messages = msgspec.json.Decoder(_MessagesBody)
_count = msgspec.json.Decoder(_CountBody)
_responses = msgspec.json.Decoder(_ResponsesBody)
_completion = msgspec.json.Decoder(_CompletionBody)
_embedding = msgspec.json.Decoder(_EmbeddingBody)


def parse_body(operation: Operation, body: bytes) -> Generation:
    """Return what a request body asks for.

    Raises:
        BadBodyError: Not JSON, a member missing, or one of a wrong type or range. Unknown members
            are no error.
    """
    try:
        if operation == "chat":
            return _read_chat(_chat.decode(body))
        if operation == "completions":
            return _read_completion(_completion.decode(body))
        if operation == "embeddings":
            return _read_embedding(_embedding.decode(body))
        if operation == "responses":
            return _read_responses(_responses.decode(body))
        if operation == "count_tokens":
            return _read_count(_count.decode(body))
        return _read_messages(_messages.decode(body))
    except msgspec.DecodeError as error:
        raise BadBodyError(str(error)) from None
    except (UnicodeDecodeError, RecursionError) as error:
        raise BadBodyError(type(error).__name__) from None


def _read_chat(body: _ChatBody) -> Generation:
    characters = 0
    for message in body.messages:
        content = message.content
        if isinstance(content, str):
            characters += len(content)
        elif content is not None:
            characters += sum(len(part.text) for part in content)
    cap = body.max_completion_tokens
    options = body.stream_options or _StreamOptions()
    return Generation(
        operation="chat",
        model=body.model,
        input_tokens=_tokens(characters),
        max_output_tokens=body.max_tokens if cap is None else cap,
        choices=body.n or 1,
        is_stream=bool(body.stream),
        asks_usage=bool(options.include_usage),
        is_usage_continuous=bool(options.include_usage and options.continuous_usage_stats),
    )


def _read_completion(body: _CompletionBody) -> Generation:
    prompts = _list_inputs(body.prompt)
    choices = len(prompts) * (body.n or 1)
    if choices > MAX_CHOICES:
        message = f"more than {MAX_CHOICES} choices"
        raise BadBodyError(message)
    options = body.stream_options or _StreamOptions()
    return Generation(
        operation="completions",
        model=body.model,
        input_tokens=sum(count for _, count in prompts),
        max_output_tokens=body.max_tokens,
        choices=choices,
        is_stream=bool(body.stream),
        asks_usage=bool(options.include_usage),
        is_usage_continuous=bool(options.include_usage and options.continuous_usage_stats),
    )


def _read_embedding(body: _EmbeddingBody) -> Generation:
    inputs = _list_inputs(body.input)
    return Generation(
        operation="embeddings",
        model=body.model,
        input_tokens=sum(count for _, count in inputs),
        inputs=tuple(text for text, _ in inputs),
        is_base64=body.encoding_format == "base64",
        dimensions=body.dimensions,
    )


def _read_count(body: _CountBody) -> Generation:
    contents = [turn.content for turn in body.messages]
    characters = sum(_characters(each) for each in (body.system, *contents))
    return Generation(operation="count_tokens", model=body.model, input_tokens=_tokens(characters))


def _read_messages(body: _MessagesBody) -> Generation:
    return msgspec.structs.replace(
        _read_count(body),
        operation="messages",
        max_output_tokens=body.max_tokens,
        is_stream=bool(body.stream),
    )


def _read_responses(body: _ResponsesBody) -> Generation:
    characters = len(body.instructions or "")
    if isinstance(body.input, str):
        characters += len(body.input)
    else:
        characters += sum(_characters(item.content) for item in body.input)
        characters += sum(len(item.output or "") for item in body.input)
    return Generation(
        operation="responses",
        model=body.model,
        input_tokens=_tokens(characters),
        max_output_tokens=body.max_output_tokens,
        is_stream=bool(body.stream),
    )


def _characters(content: str | list[_Block] | list[_Part] | None) -> int:
    if content is None or isinstance(content, str):
        return len(content or "")
    return sum(len(part.text) for part in content)


def _list_inputs(given: str | list[Any]) -> list[tuple[str, int]]:
    """Return each input as text with its number of tokens."""
    if isinstance(given, str):
        return [(given, _tokens(len(given)))]
    if all(type(item) is int for item in given):
        return [(repr(given), len(given))]
    inputs = []
    for item in given:
        if isinstance(item, str):
            inputs.append((item, _tokens(len(item))))
        elif isinstance(item, list) and item and all(type(part) is int for part in item):
            inputs.append((repr(item), len(item)))
        else:
            message = "an input is text, a list of token ids, or a list of either"
            raise BadBodyError(message)
    return inputs


def _tokens(characters: int) -> int:
    return max(1, -(-characters // CHARACTERS_PER_TOKEN))
