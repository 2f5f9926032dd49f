"""Anthropic's SDK, and OpenAI's for Responses, against the running product: model and emulator."""

from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest
from anthropic.types import MessageParam
from tests.fakes.dev_instance import DevInstance, running_dev

MODELS = ["smollm2", "emulated-70b"]
SHORT: list[MessageParam] = [{"role": "user", "content": "Say hello."}]
SURE = {"temperature": 0}
"""Has llama.cpp not begin with a letter of several tokens: it leaves the first event out then."""
EACH = pytest.mark.parametrize("model", MODELS)


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevInstance]:
    """Start the whole product once."""
    with running_dev(tmp_path_factory.mktemp("sdks") / "data") as instance:
        yield instance


@pytest.fixture
def claude(product: DevInstance) -> Iterator[anthropic.Anthropic]:
    """Return Anthropic's client, whose base URL has no `/v1`."""
    url = product.api_url.removesuffix("/v1")
    key = product.facts["api_key"]
    with anthropic.Anthropic(base_url=url, api_key=key, max_retries=0, timeout=60) as found:
        yield found


@pytest.fixture
def client(product: DevInstance) -> Iterator[openai.OpenAI]:
    """Return OpenAI's client."""
    with openai.OpenAI(
        base_url=product.api_url, api_key=product.facts["api_key"], max_retries=0, timeout=60
    ) as found:
        yield found


def _row(product: DevInstance, request_id: str) -> dict[str, Any]:
    [row] = [row for row in product.wait_usage({request_id}) if row["request_id"] == request_id]
    return row


@EACH
def test_a_message_is_answered_and_metered(
    claude: anthropic.Anthropic, product: DevInstance, model: str
) -> None:
    """A plain message returns text, and its engine's token counts are in the usage store."""
    raw = claude.messages.with_raw_response.create(
        model=model, messages=SHORT, max_tokens=16, extra_body=SURE
    )
    answer = raw.parse()
    assert answer.content[0].type == "text"
    assert answer.content[0].text
    row = _row(product, raw.headers["x-request-id"])
    usage = answer.usage
    inputs = usage.input_tokens + (usage.cache_read_input_tokens or 0)
    assert (row["input_tokens"], row["output_tokens"]) == (inputs, usage.output_tokens)
    assert (row["model"], row["outcome"], row["usage_source"]) == (model, "ok", "engine")
    counted = claude.messages.count_tokens(model=model, messages=SHORT)
    assert counted.input_tokens == inputs


@EACH
def test_a_streamed_message_is_metered(
    claude: anthropic.Anthropic, product: DevInstance, model: str
) -> None:
    """The SDK puts the message together again, and what it says of usage is what is booked."""
    with claude.messages.stream(
        model=model, messages=SHORT, max_tokens=12, extra_body=SURE
    ) as stream:
        assert "".join(stream.text_stream)
        answer = stream.get_final_message()
        request_id = stream.response.headers["x-request-id"]
    row = _row(product, request_id)
    inputs = answer.usage.input_tokens + (answer.usage.cache_read_input_tokens or 0)
    assert (row["input_tokens"], row["output_tokens"]) == (inputs, answer.usage.output_tokens)
    assert (row["outcome"], row["usage_source"]) == ("ok", "engine")


@EACH
def test_a_message_whose_caller_leaves_is_metered_once(
    claude: anthropic.Anthropic, product: DevInstance, model: str
) -> None:
    """A stream that its caller leaves is recorded once, with at least what was relayed."""
    stream = claude.messages.create(
        model=model, messages=SHORT, max_tokens=400, stream=True, extra_body=SURE
    )
    request_id = stream.response.headers["x-request-id"]
    seen = 0
    for event in stream:
        seen += event.type == "content_block_delta"
        if seen == 5:
            break
    stream.close()
    row = _row(product, request_id)
    assert row["outcome"] in {"caller_gone", "ok"}  # all of a short answer may have come
    assert row["output_tokens"] >= seen
    assert row["input_tokens"] > 0


def test_errors_of_messages_are_typed(claude: anthropic.Anthropic, product: DevInstance) -> None:
    """Refusals raise the SDK's own exceptions, with its words and ours."""
    with pytest.raises(anthropic.NotFoundError) as missing:
        claude.messages.create(model="no-such-model", messages=SHORT, max_tokens=5)
    assert missing.value.type == "not_found_error"
    assert missing.value.response.headers["x-penstock-error-code"].startswith("err:gateway:")
    with pytest.raises(anthropic.BadRequestError):
        claude.messages.create(model="smollm2", messages=SHORT, max_tokens=-1)
    url = product.api_url.removesuffix("/v1")
    with (
        anthropic.Anthropic(base_url=url, api_key="ps_live_wrong", max_retries=0) as stranger,
        pytest.raises(anthropic.AuthenticationError),
    ):
        stranger.messages.create(model="smollm2", messages=SHORT, max_tokens=5)


def test_a_message_that_fails_in_its_stream_raises(claude: anthropic.Anthropic) -> None:
    """An error event under 200 is an exception, never a short answer."""
    fault = {
        "x-emulator-fault": "error_in_200",
        "x-emulator-fault-after": "6",
        "x-emulator-itl-ms": "40",
    }
    asked: dict[str, Any] = {"model": "emulated-70b", "messages": SHORT, "max_tokens": 50}
    # The gateway may have read of it before it has passed anything on: it is a 502 then.
    with pytest.raises(anthropic.APIStatusError) as failed:
        list(claude.messages.create(**asked, stream=True, extra_headers=fault))
    assert failed.value.type == "api_error"


@EACH
def test_a_response_is_answered_and_metered(
    client: openai.OpenAI, product: DevInstance, model: str
) -> None:
    """A plain response returns text, and its engine's token counts are in the usage store."""
    raw = client.responses.with_raw_response.create(
        model=model, input="Say hello.", max_output_tokens=16
    )
    answer = raw.parse()
    assert answer.output_text
    assert answer.usage is not None
    row = _row(product, raw.headers["x-request-id"])
    assert (row["input_tokens"], row["output_tokens"]) == (
        answer.usage.input_tokens,
        answer.usage.output_tokens,
    )
    assert (row["outcome"], row["usage_source"]) == ("ok", "engine")


@EACH
def test_a_streamed_response_is_metered(
    client: openai.OpenAI, product: DevInstance, model: str
) -> None:
    """Its last event has all of it, and what that says of usage is what is booked."""
    stream = client.responses.create(
        model=model, input="Say hello.", max_output_tokens=12, temperature=0, stream=True
    )
    request_id = stream.response.headers["x-request-id"]
    last = list(stream)[-1]
    assert last.type in {"response.completed", "response.incomplete"}
    assert last.response.usage is not None
    row = _row(product, request_id)
    assert row["output_tokens"] == last.response.usage.output_tokens
    assert (row["outcome"], row["usage_source"]) == ("ok", "engine")


def test_a_response_that_fails_in_its_stream_raises(client: openai.OpenAI) -> None:
    """An engine's failure under 200 is an exception, never a short answer."""
    fault = {
        "x-emulator-fault": "error_in_200",
        "x-emulator-fault-after": "8",
        "x-emulator-itl-ms": "40",
    }
    asked: dict[str, Any] = {"model": "emulated-70b", "input": "x", "max_output_tokens": 50}
    # The gateway may have read of it before it has passed anything on: it is a 502 then.
    with pytest.raises(openai.APIError) as failed:
        list(client.responses.create(**asked, stream=True, extra_headers=fault))
    assert failed.value.code == "failed"


def test_state_of_responses_is_refused(client: openai.OpenAI) -> None:
    """What would be kept at an engine is refused before one is asked."""
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(model="smollm2", input="x", previous_response_id="resp_1")
    assert (refused.value.code, refused.value.param) == (
        "unsupported_parameter",
        "previous_response_id",
    )
