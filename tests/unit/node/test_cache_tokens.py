"""Prompts as tokens: by the model's template and tokenizer, or not at all."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.fakes.small_tokenizer import PIECE, TEMPLATE, write_tokenizer

from penstock.emulator.kv_cache import _tokens as emulated_tokens
from penstock.node.caches.blocks import pack
from penstock.node.caches.tokens import Prompts, TokenizerError

TEXT = "You are a helpful assistant. " * 3


def _body(**members: Any) -> bytes:
    return msgspec.json.encode({"model": "m", **members})


def _chat(*contents: Any, **members: Any) -> bytes:
    return _body(messages=[{"role": "user", "content": each} for each in contents], **members)


@pytest.fixture
def prompts(tmp_path: Path) -> Prompts:
    """Return what reads prompts of a small model."""
    return Prompts(write_tokenizer(tmp_path, TEXT, TEXT + "\n" + TEXT))


def test_tokens_are_those_of_the_engine(prompts: Prompts) -> None:
    """Of chats, of texts, and of tokens that a caller sends himself."""
    tokens = emulated_tokens(TEXT)
    assert len(tokens) == -(-len(TEXT) // PIECE)
    for body in (_chat(TEXT), _body(prompt=TEXT), _body(prompt=tokens)):
        assert prompts.read(body) == (pack(tokens), None)
    salted = prompts.read(_chat(TEXT, cache_salt="s", unknown={"more": 1}))
    assert salted == (pack(tokens), "s")


def test_parts_of_a_message_are_one_text(prompts: Prompts) -> None:
    """As engines put them together where a template wants texts."""
    parts = [{"type": "text", "text": TEXT}, {"type": "text", "text": TEXT}]
    assert prompts.read(_chat(parts)) == (pack(emulated_tokens(TEXT + "\n" + TEXT)), None)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no JSON",
        _body(),
        _body(prompt=["several", "prompts"]),
        _body(prompt=[-1]),
        _body(prompt=[2**40]),
        _body(messages="text"),
        _chat([{"type": "image_url", "image_url": {"url": "x"}}]),
        _chat(["text"]),
        _chat(TEXT, continue_final_message=True),
        _chat(TEXT, chat_template="{{ 1 }}"),
        b'{"prompt": ' + b"[" * 100_000,
    ],
)
def test_what_cannot_be_told_is_nothing(prompts: Prompts, body: bytes) -> None:
    """Whatever is asked, nothing is raised."""
    assert prompts.read(body) is None


def test_templates_get_what_engines_give_them(tmp_path: Path) -> None:
    """Tools, names of tokens, parsed arguments of calls, and what a request adds."""
    template = (
        "{{ bos_token }}{{ tools[0].name }}{{ messages[0].tool_calls[0].function.arguments.city }}"
        "{{ deep }}{% if add_generation_prompt %}>{% endif %}{{ tools | tojson }}"
    )
    expected = 'BOSfindÜber!>[{"name": "find"}]'
    folder = write_tokenizer(tmp_path, expected, template=None)
    config = {"bos_token": {"content": "BOS"}, "chat_template": template}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    call = {"type": "function", "function": {"name": "find", "arguments": '{"city": "Über"}'}}
    body = _body(
        messages=[{"role": "assistant", "content": None, "tool_calls": [call]}],
        tools=[{"name": "find"}],
        chat_template_kwargs={"deep": "!"},
    )
    found = Prompts(folder).read(body)
    assert found == (pack(emulated_tokens(expected)), None)


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('no') }}",
        "{{ messages.append(1) }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{% for a in range(999999999) %}{% endfor %}",
        "{{ nothing.at.all }}",
    ],
)
def test_templates_reach_nothing(tmp_path: Path, template: str) -> None:
    """What they are not to do has no tokens."""
    assert Prompts(write_tokenizer(tmp_path, TEXT, template=template)).read(_chat(TEXT)) is None


def test_a_model_without_template_has_texts_alone(tmp_path: Path) -> None:
    """Nobody can tell how it puts messages together."""
    prompts = Prompts(write_tokenizer(tmp_path, TEXT, template=None))
    assert prompts.read(_chat(TEXT)) is None
    assert prompts.read(_body(prompt=TEXT)) is not None


def test_one_of_several_templates_is_the_usual_one(tmp_path: Path) -> None:
    """Some models name a few."""
    folder = write_tokenizer(tmp_path, TEXT, template=None)
    named = [{"name": "rag", "template": "no"}, {"name": "default", "template": TEMPLATE}]
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    assert Prompts(folder).read(_chat(TEXT)) == (pack(emulated_tokens(TEXT)), None)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", "{}"),
        ("tokenizer_config.json", "[]"),
        ("chat_template.jinja", "{% for %}"),
    ],
)
def test_files_that_make_no_sense_are_named(tmp_path: Path, name: str, content: str) -> None:
    """And nothing else than that is raised; as where there is nothing."""
    folder = write_tokenizer(tmp_path, TEXT)
    (folder / name).write_text(content)
    with pytest.raises(TokenizerError, match=str(tmp_path)):
        Prompts(folder)
    with pytest.raises(TokenizerError, match="nowhere"):
        Prompts(tmp_path / "nowhere")
