"""The official OpenAI SDK against the running product, on the real model and on the emulator."""

from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam
from tests.fakes.dev_instance import DevInstance, running_dev

MODELS = ["smollm2", "emulated-70b"]
SHORT: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Say hello."}]


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevInstance]:
    """Start the whole product once."""
    with running_dev(tmp_path_factory.mktemp("sdk") / "data") as instance:
        yield instance


@pytest.fixture
def client(product: DevInstance) -> Iterator[openai.OpenAI]:
    """Return the synchronous client with the instance's key."""
    with openai.OpenAI(
        base_url=product.api_url, api_key=product.facts["api_key"], max_retries=0, timeout=60
    ) as found:
        yield found


def test_models_are_listed(client: openai.OpenAI) -> None:
    """Both models are listed and can be retrieved."""
    assert {model.id for model in client.models.list()} == set(MODELS)
    assert client.models.retrieve("smollm2").id == "smollm2"


@pytest.mark.parametrize("model", MODELS)
def test_plain_chat_is_answered_and_metered(
    client: openai.OpenAI, product: DevInstance, model: str
) -> None:
    """A plain chat returns text, and its engine's token counts are in the usage store."""
    raw = client.chat.completions.with_raw_response.create(
        model=model, messages=SHORT, max_tokens=16
    )
    answer = raw.parse()
    assert answer.choices[0].message.content
    assert answer.usage is not None
    request_id = raw.headers["x-request-id"]
    [row] = [row for row in product.wait_usage({request_id}) if row["request_id"] == request_id]
    assert (row["input_tokens"], row["output_tokens"]) == (
        answer.usage.prompt_tokens,
        answer.usage.completion_tokens,
    )
    assert (row["model"], row["outcome"], row["usage_source"]) == (model, "ok", "engine")


@pytest.mark.parametrize("model", MODELS)
def test_stream_without_usage_asked_hides_it_and_meters_it(
    client: openai.OpenAI, product: DevInstance, model: str
) -> None:
    """A stream that did not ask for usage shows none, yet its tokens are the engine's own."""
    stream = client.chat.completions.create(model=model, messages=SHORT, max_tokens=12, stream=True)
    request_id = stream.response.headers["x-request-id"]
    chunks = list(stream)
    assert all(chunk.usage is None for chunk in chunks)
    assert all(chunk.choices for chunk in chunks)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    [row] = [row for row in product.wait_usage({request_id}) if row["request_id"] == request_id]
    assert row["usage_source"] == "engine"
    assert 0 < row["output_tokens"] <= 12


@pytest.mark.parametrize("model", MODELS)
def test_stream_with_usage_asked_shows_it(client: openai.OpenAI, model: str) -> None:
    """A stream that asked for usage ends with the usage chunk."""
    chunks = list(
        client.chat.completions.create(
            model=model,
            messages=SHORT,
            max_tokens=8,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 0


@pytest.mark.parametrize("model", MODELS)
async def test_async_stream(product: DevInstance, model: str) -> None:
    """The asynchronous client streams as well."""
    async with openai.AsyncOpenAI(
        base_url=product.api_url, api_key=product.facts["api_key"], max_retries=0
    ) as client:
        stream = await client.chat.completions.create(
            model=model, messages=SHORT, max_tokens=8, stream=True
        )
        texts = [chunk.choices[0].delta.content or "" async for chunk in stream]
    assert "".join(texts)


def test_legacy_completions_and_embeddings(client: openai.OpenAI) -> None:
    """Completions and embeddings answer through the same door."""
    completion = client.completions.create(model="emulated-70b", prompt="Once", max_tokens=4)
    assert completion.choices[0].text
    embedding = client.embeddings.create(model="emulated-70b", input=["a", "b"])
    assert len(embedding.data) == 2


@pytest.mark.parametrize("model", MODELS)
def test_aborted_stream_is_metered_once(
    client: openai.OpenAI, product: DevInstance, model: str
) -> None:
    """A stream that its caller leaves is recorded once, with at least what was relayed."""
    stream = client.chat.completions.create(
        model=model,
        messages=SHORT,
        max_tokens=1500,
        stream=True,
        extra_body={"ignore_eos": True},  # a short answer would be over before its caller leaves
    )
    request_id = stream.response.headers["x-request-id"]
    seen = 0
    for _ in stream:
        seen += 1
        if seen == 5:
            break
    stream.close()
    rows = [row for row in product.wait_usage({request_id}) if row["request_id"] == request_id]
    assert len(rows) == 1
    assert rows[0]["outcome"] == "caller_gone"
    assert rows[0]["usage_source"] == "counted"
    assert rows[0]["output_tokens"] >= seen - 1


def test_errors_are_typed(client: openai.OpenAI, product: DevInstance) -> None:
    """Refusals raise the SDK's own exceptions with the conventional code and ours."""
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="no-such-model", messages=SHORT)
    assert missing.value.code == "model_not_found"
    assert missing.value.response.headers["x-penstock-error-code"].startswith("err:gateway:")
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="smollm2", messages=SHORT, max_tokens=-1)
    with (
        openai.OpenAI(base_url=product.api_url, api_key="ps_live_wrong", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError) as refused,
    ):
        stranger.models.list()
    assert refused.value.code == "invalid_api_key"
    for status, raised in (
        (429, openai.APIStatusError),
        (503, openai.InternalServerError),
        (500, openai.InternalServerError),
    ):
        with pytest.raises(raised):
            client.chat.completions.create(
                model="emulated-70b",
                messages=SHORT,
                extra_headers={
                    "x-emulator-fault": "status",
                    "x-emulator-status": str(status),
                },
            )


def test_broken_stream_raises_instead_of_ending(client: openai.OpenAI) -> None:
    """An engine that dies in the middle of a stream is an exception, never a short answer."""
    asked: dict[str, Any] = {"model": "emulated-70b", "messages": SHORT, "max_tokens": 50}
    fault = {"x-emulator-fault": "disconnect", "x-emulator-fault-after": "3"}
    # The gateway may have read of it before it has passed anything on: it is a 502 then.
    with pytest.raises((openai.APIError, httpx.HTTPError)):
        list(client.chat.completions.create(**asked, stream=True, extra_headers=fault))
