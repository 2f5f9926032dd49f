"""Anthropic's Messages and OpenAI's Responses: what may be sent, what answers say; pure."""

import json
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from tests.fakes.worker_process import PEPPER, build_runtime, make_snapshot

from penstock.contract.snapshot import Alias, Choice, Deployment, Endpoint, Route, Upstream
from penstock.gateway.admit import Admission
from penstock.gateway.admit_native import admit_native, readdress_native, write_native_cap
from penstock.gateway.demand import NO_TOKENS
from penstock.gateway.dialects.errors import (
    MEMBER_INVALID,
    MEMBER_MISSING,
    MODEL_NOT_FOUND,
    OPERATION_UNSUPPORTED,
    STATE_UNSUPPORTED,
    TOOL_UNSUPPORTED,
)
from penstock.gateway.dialects.messages import COUNT_TOKENS, MESSAGES
from penstock.gateway.dialects.openai import Operation
from penstock.gateway.dialects.operations import OPERATIONS
from penstock.gateway.dialects.responses import RESPONSES
from penstock.gateway.forms import form_of
from penstock.gateway.limits import (
    INPUT_OVERHEAD_TOKENS,
    MEDIA_TOKENS,
    QUESTION_PARTS,
    QUESTION_PIECES,
)
from penstock.gateway.quota import Quota
from penstock.gateway.runtime import Principal
from penstock.kit.errors import ErrorCode, Refusal


def _upstream(name: str) -> Upstream:
    return Upstream(name, name, (Endpoint("http", "127.0.0.1", 1),))


_PLAIN = make_snapshot([1])
_RUNTIME = build_runtime(
    msgspec.structs.replace(
        _PLAIN,
        upstreams=(*_PLAIN.upstreams, *map(_upstream, ("vllm", "triton", "openai_compatible"))),
        deployments=(
            Deployment("v", "vllm", "on-vllm", max_output_tokens=50),
            Deployment("t", "triton", "on-triton"),
            Deployment("o", "openai_compatible", "on-other"),
            *_PLAIN.deployments,
        ),
        routes=(
            Route("some", (Choice("t"), Choice("o"), Choice("v"))),
            Route("none", (Choice("t"),)),
            Route("two", (Choice("main"), Choice("v"))),
            *_PLAIN.routes,
        ),
        aliases=(
            Alias("some", "some"),
            Alias("none", "none"),
            Alias("two", "two"),
            *_PLAIN.aliases,
        ),
    ),
    PEPPER,
)
_WHO = Principal("key", "org-a", "project-a", None, None)
_OTHER = Principal("key-b", "org-b", "project-b", None, None)
_PAYS = Principal(
    "key", "org-a", "project-a", None, None, quota=cast("Quota", SimpleNamespace(budgets=(1,)))
)
_TURN = {"role": "user", "content": "x"}
_ASKED: dict[Operation, dict[str, Any]] = {
    MESSAGES: {"model": "model-a", "max_tokens": 10, "messages": [_TURN]},
    COUNT_TOKENS: {"model": "model-a", "messages": [_TURN]},
    RESPONSES: {"model": "model-a", "input": "x"},
}
EACH = pytest.mark.parametrize("operation", _ASKED, ids=lambda each: each.name)


def _ask(
    operation: Operation, principal: Principal = _WHO, /, **members: Any
) -> Admission | Refusal:
    return admit_native(
        _RUNTIME, principal, operation, json.dumps(_ASKED[operation] | members).encode()
    )


def _admit(operation: Operation, principal: Principal = _WHO, /, **members: Any) -> Admission:
    admission = _ask(operation, principal, **members)
    assert isinstance(admission, Admission), admission
    return admission


def _sent(operation: Operation, principal: Principal = _WHO, /, **members: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(_admit(operation, principal, **members).body)
    return found


def _refused(operation: Operation, **members: Any) -> tuple[ErrorCode, str | None]:
    refusal = _ask(operation, **members)
    assert isinstance(refusal, Refusal), refusal
    return refusal.error, refusal.param


@EACH
def test_the_question_is_sent_as_it_is(operation: Operation) -> None:
    """But for the model's name, and that nothing is to be kept, the engine gets what was sent."""
    own = {"temperature": 0.5, "thinking": {"type": "enabled", "budget_tokens": 5}}
    kept = {"store": False} if operation is RESPONSES else {}
    expected = _ASKED[operation] | own | {"model": "served-model"} | kept
    assert _sent(operation, **own) == expected
    assert OPERATIONS[operation.path.encode()] is operation


@EACH
def test_models_are_those_of_the_principal(operation: Operation) -> None:
    """An alias that is none is not found, whatever else is wrong."""
    assert _refused(operation, model="absent", tools=[{"type": "mcp"}]) == (
        MODEL_NOT_FOUND,
        "model",
    )


@EACH
def test_questions_must_be_there(operation: Operation) -> None:
    """Without its question a request is refused by us, not by the engine."""
    name = operation.input_member
    nothing: tuple[Any, ...] = ([], None)
    for empty in nothing:
        assert _refused(operation, **{name: empty}) == (MEMBER_MISSING, name)
    assert _refused(operation, **{name: 5}) == (MEMBER_INVALID, name)


@pytest.mark.parametrize(
    ("operation", "name"), [(MESSAGES, "max_tokens"), (RESPONSES, "max_output_tokens")]
)
def test_output_is_bounded_by_the_deployment(operation: Operation, name: str) -> None:
    """The most output tokens are a whole number within what the deployment gives."""
    assert _sent(operation, **{name: 100_000})[name] == 100_000
    for wrong in (0, -1, 100_001, 1.5, "9", True):
        assert _refused(operation, **{name: wrong}) == (MEMBER_INVALID, name)


def test_messages_must_name_the_most_output_tokens() -> None:
    """As Anthropic's API wants it; a response need not, and a number of tokens has none."""
    assert _refused(MESSAGES, max_tokens=None) == (MEMBER_MISSING, "max_tokens")
    assert "max_output_tokens" not in _sent(RESPONSES)
    assert "max_tokens" not in _sent(COUNT_TOKENS)


@EACH
def test_no_other_member_makes_the_output_longer(operation: Operation) -> None:
    """Members by which other protocols ask for more are not passed on."""
    others = {"n_predict": 9, "max_completion_tokens": 9, "n": 2, "best_of": 2, "num_predict": 9}
    assert _sent(operation, **others) == _sent(operation)


@EACH
def test_members_that_steer_are_taken_out(operation: Operation) -> None:
    """As of chats; the cache is the organization's own where the engine keeps caches apart."""
    steering = {"kv_transfer_params": {}, "ec_transfer_params": {}, "cache_salt": "x", "rid": "y"}
    assert _sent(operation, **steering) == _sent(operation)
    by_vllm = _sent(operation, model="two", **({"max_tokens": 1} if operation is MESSAGES else {}))
    if by_vllm["model"] == "on-vllm":
        assert len(by_vllm["cache_salt"]) == 64


def test_caches_of_organizations_are_apart() -> None:
    """The salt is written also there, and differs between organizations."""
    salts = {
        _sent(operation, who, model="some")["cache_salt"]
        for operation in (MESSAGES, COUNT_TOKENS)
        for who in (_WHO, _OTHER)
    }
    assert len(salts) == 2


def test_users_have_pseudonyms() -> None:
    """Names of users and conversations reach no engine, and organizations cannot be compared."""
    mine = _sent(MESSAGES, metadata={"user_id": "u", "other": 1})["metadata"]
    theirs = _sent(MESSAGES, _OTHER, metadata={"user_id": "u"})["metadata"]
    assert mine["other"] == 1
    assert len({mine["user_id"], theirs["user_id"], "u"}) == 3
    assert _sent(MESSAGES, metadata={"user_id": None})["metadata"] == {"user_id": None}
    assert _refused(MESSAGES, metadata=5) == (MEMBER_INVALID, "metadata")
    for name in ("user", "safety_identifier", "prompt_cache_key"):
        values = {_sent(RESPONSES, who, **{name: "u"})[name] for who in (_WHO, _OTHER)}
        assert len(values | {"u"}) == 3
    assert _sent(RESPONSES, metadata={"user_id": "u"})["metadata"] == {"user_id": "u"}


def test_what_the_caller_says_of_a_request_is_kept_for_labels() -> None:
    """Metadata are known as they were sent, and so is the conversation."""
    admission = _admit(MESSAGES, metadata={"user_id": "u"})
    assert bytes(cast("bytes", admission.metadata)) == b'{"user_id": "u"}'
    assert bytes(cast("bytes", admission.session)) == b'"u"'
    assert _admit(MESSAGES).session is None
    session = _admit(RESPONSES, prompt_cache_key="talk").session
    assert bytes(cast("bytes", session)) == b'"talk"'


@pytest.mark.parametrize("stored", [None, True, False])
def test_responses_are_not_stored(stored: bool | None) -> None:  # noqa: FBT001 - what is sent
    """Whatever the caller says, engines are told to keep nothing."""
    assert _sent(RESPONSES, store=stored)["store"] is False


_FILE = {"type": "file", "file_id": "f"}
_IMAGE = {"type": "image", "source": _FILE}
_RESULT = {"type": "tool_result", "tool_use_id": "t", "content": [_IMAGE]}
_OUTPUT = {"type": "function_call_output", "output": [{"type": "input_image", "file_id": "f"}]}
_STATE = [
    (RESPONSES, {"previous_response_id": "resp_1"}, "previous_response_id"),
    (RESPONSES, {"conversation": "conv_1"}, "conversation"),
    (RESPONSES, {"conversation": {"id": "conv_1"}}, "conversation"),
    (RESPONSES, {"background": True}, "background"),
    (RESPONSES, {"prompt": {"id": "pmpt_1"}}, "prompt"),
    (RESPONSES, {"input": [{"type": "item_reference", "id": "msg_1"}]}, "input"),
    (RESPONSES, {"input": [{"id": "msg_1"}]}, "input"),
    (RESPONSES, {"input": [{"type": None, "role": None, "id": "msg_1"}]}, "input"),
    (RESPONSES, {"input": [{"content": [{"type": "input_file", "file_id": "f"}]}]}, "input"),
    (RESPONSES, {"input": [_OUTPUT]}, "input"),
    (MESSAGES, {"container": "c"}, "container"),
    (MESSAGES, {"mcp_servers": [{"url": "http://10.0.0.1"}]}, "mcp_servers"),
    (MESSAGES, {"messages": [{"content": [{"type": "document", "source": _FILE}]}]}, "messages"),
    (MESSAGES, {"messages": [{"content": [_RESULT]}]}, "messages"),
    (COUNT_TOKENS, {"messages": [{"content": [{"type": "container_upload"}]}]}, "messages"),
]


@pytest.mark.parametrize(("operation", "members", "param"), _STATE)
def test_what_servers_keep_is_refused(
    operation: Operation, members: dict[str, Any], param: str
) -> None:
    """Whatever stands for something that is kept at an engine is refused, by name."""
    assert _refused(operation, **members) == (STATE_UNSUPPORTED, param)


@pytest.mark.parametrize(
    ("item", "word"),
    [({"type": "item_reference"}, "item_reference"), ({"content": [{"file_id": "f"}]}, "file_id")],
)
def test_what_servers_keep_is_found_however_it_is_written(item: dict[str, Any], word: str) -> None:
    """JSON may write letters as escapes, and put spaces anywhere."""
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in word)
    body = json.dumps(_ASKED[RESPONSES] | {"input": [item]}, separators=(" , ", " : "), indent=1)
    refusal = admit_native(_RUNTIME, _WHO, RESPONSES, body.replace(word, escaped).encode())
    assert isinstance(refusal, Refusal)
    assert refusal.error is STATE_UNSUPPORTED


@pytest.mark.parametrize(
    ("name", "most"),
    [("input", QUESTION_PARTS), ("input", QUESTION_PIECES), ("tools", QUESTION_PIECES)],
)
def test_a_question_has_so_many_parts_at_most(name: str, most: int) -> None:
    """A body that is nothing but parts is refused before each of them is looked into."""
    parts = msgspec.Raw(b"[" + b"{}," * most + b"{}]")
    body = msgspec.json.encode(_ASKED[RESPONSES] | {name: parts})
    refusal = admit_native(_RUNTIME, _WHO, RESPONSES, body)
    assert isinstance(refusal, Refusal)
    assert (refusal.error, refusal.param) == (MEMBER_INVALID, name)
    assert "too many parts" in refusal.message


def test_parts_are_looked_into_as_deeply_as_they_can_be() -> None:
    """What is nested more deeply than any question, or has parts of no form, is refused."""
    part: dict[str, Any] = {"type": "text", "text": "x"}
    for _ in range(6):
        part = {"type": "tool_result", "content": [part]}
    assert _sent(MESSAGES, messages=[{"role": "user", "content": [part]}])
    for _ in range(100):
        part = {"type": "tool_result", "content": part}
    assert _refused(MESSAGES, messages=[part]) == (MEMBER_INVALID, "messages")
    odd_ones: list[Any] = [[5], ["x"], [None], [{"type": 5}], [{"content": [[]]}]]
    for odd in odd_ones:
        assert _refused(RESPONSES, input=odd) == (MEMBER_INVALID, "input")
    failed = {"type": "web_search_tool_result", "content": {"type": "error", "code": "x"}}
    assert _sent(MESSAGES, messages=[{"role": "user", "content": [failed]}])


@pytest.mark.parametrize(
    "members",
    [
        {"previous_response_id": None, "background": False, "conversation": None},
        {"input": [{"type": "function_call", "arguments": '{"file_id":"f"}', "call_id": "c"}]},
        {"input": [{"role": "user", "content": '"file_id" "item_reference"'}]},
        {"input": [{"role": "assistant", "content": "x", "id": "msg_1"}]},
        {"input": [{"type": "reasoning", "summary": [], "id": "rs_1"}]},
        {"tools": [{"type": "function", "name": "f", "parameters": {"file_id": 1}}]},
        {"tools": [{"type": "custom", "name": "f"}, {"type": "local_shell"}]},
        {"tools": None},
    ],
)
def test_what_only_looks_like_state_passes(members: dict[str, Any]) -> None:
    """Words in text, and arguments of the caller's own tools, stand for nothing at an engine."""
    expected = _ASKED[RESPONSES] | members | {"model": "served-model", "store": False}
    assert _sent(RESPONSES, **members) == expected


def test_arguments_of_callers_tools_pass() -> None:
    """What a model called a tool of the caller with is the caller's own business."""
    call = {"type": "tool_use", "id": "t", "name": "n", "input": {"type": "file", "file_id": "f"}}
    turns = [_TURN, {"role": "assistant", "content": [call]}]
    assert _sent(MESSAGES, messages=turns)["messages"] == turns


@pytest.mark.parametrize(
    ("operation", "tool"),
    [
        (RESPONSES, "web_search"),
        (RESPONSES, "file_search"),
        (RESPONSES, "code_interpreter"),
        (RESPONSES, "image_generation"),
        (RESPONSES, "mcp"),
        (MESSAGES, "web_search_20250305"),
        (MESSAGES, "code_execution_20250825"),
        (MESSAGES, "mcp_toolset"),
    ],
)
def test_tools_that_servers_run_are_refused(operation: Operation, tool: str) -> None:
    """What an engine would do by itself is seen and priced by nobody."""
    assert _refused(operation, tools=[{"type": tool}]) == (TOOL_UNSUPPORTED, "tools")


def test_tools_that_callers_run_pass() -> None:
    """Anthropic's own ones of which only the form is known to the model are among them."""
    tools = [
        {"name": "f", "input_schema": {}},
        {"type": "custom", "name": "f", "input_schema": {}},
        {"type": "bash_20250124", "name": "bash"},
        {"type": "text_editor_20250728", "name": "edit"},
    ]
    assert _sent(MESSAGES, tools=tools)["tools"] == tools
    assert _refused(MESSAGES, tools={}) == (MEMBER_INVALID, "tools")


def test_only_engines_that_speak_it_are_asked() -> None:
    """A choice of another kind is passed over; where there is none, the whole is refused."""
    for operation in (MESSAGES, COUNT_TOKENS):
        assert _admit(operation, model="some").target.deployment.name == "v"
        assert _refused(operation, model="none") == (OPERATION_UNSUPPORTED, None)
    names = {_admit(RESPONSES, model="some").target.deployment.name for _ in range(20)}
    assert names <= {"v", "o"}
    # Why the one does not that speaks it is of more use than that others do not.
    assert _refused(MESSAGES, model="some", max_tokens=51) == (MEMBER_INVALID, "max_tokens")


def test_another_target_gets_its_own_names() -> None:
    """Model and salt are the other one's; one that gives less, or speaks otherwise, has none."""
    admission = _admit(MESSAGES, model="two", max_tokens=51)
    assert admission.target.deployment.name == "main"
    targets = {target.deployment.name: target for tier in admission.offer.tiers for target in tier}
    assert readdress_native(admission, targets["v"]) is None
    admission = _admit(MESSAGES, model="two", max_tokens=50)
    to_vllm = form_of(admission).readdress(admission, targets["v"])
    assert to_vllm is not None
    assert json.loads(to_vllm.body)["model"] == "on-vllm"
    assert "cache_salt" in json.loads(to_vllm.body)
    back = form_of(to_vllm).readdress(to_vllm, targets["main"])
    assert back is not None
    assert back.body == admission.body


def test_the_worst_case_counts_media_and_tools() -> None:
    """A hold covers what no tokenizer makes more of, also inside of results of tools."""
    image = {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}
    result = {"type": "tool_result", "tool_use_id": "t", "content": [image, image]}
    turns = [{"role": "user", "content": [image, result, {"type": "text", "text": "x"}]}]
    tools = [{"name": "f", "input_schema": {}}]
    members: dict[str, Any] = {"messages": turns, "tools": tools}
    size = len(json.dumps(_ASKED[MESSAGES] | members))
    demand = _admit(MESSAGES, _PAYS, **members).demand
    assert demand is not None
    least = size + INPUT_OVERHEAD_TOKENS + len(json.dumps(tools)) + 3 * MEDIA_TOKENS
    assert demand.most_input_tokens == least
    assert (demand.cap, demand.answers, demand.has_other_caps) == (10, 1, False)
    assert _admit(COUNT_TOKENS, _PAYS).demand is NO_TOKENS
    picture = {"type": "input_image", "image_url": "https://example.com/a.png"}
    response = _admit(RESPONSES, _PAYS, input=[{"role": "user", "content": [picture]}])
    assert response.demand is not None
    assert response.demand.most_input_tokens > MEDIA_TOKENS
    assert response.demand.cap is None


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_v2", "url": "https://example.com/a"},
        {"type": "image_generation_call", "result": "iVBORw0KGgo"},
        {"image_url": "https://example.com/a.png"},
    ],
    ids=["new", "made", "unnamed"],
)
@pytest.mark.parametrize("operation", [MESSAGES, RESPONSES], ids=["messages", "responses"])
def test_parts_that_nobody_knows_are_held_to_be_media(
    operation: Operation, part: dict[str, str]
) -> None:
    """A hold covers what engines may make of it, as of a chat: a short address may be an image."""
    turns = [{"role": "user", "content": [part, {"type": "text", "text": "x"}]}]
    members: dict[str, Any] = {operation.input_member: turns}
    demand = _admit(operation, _PAYS, **members).demand
    assert demand is not None
    size = len(json.dumps(_ASKED[operation] | members))
    assert demand.most_input_tokens == size + INPUT_OVERHEAD_TOKENS + MEDIA_TOKENS


def test_what_agents_say_again_is_held_by_its_size() -> None:
    """A long conversation with calls of tools and their results is not held to be media."""
    input_: list[dict[str, Any]] = [
        {"role": "user", "content": "a"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "b"}]},
        {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "c"}]},
        {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "1", "output": "d"},
    ]
    turns: list[dict[str, Any]] = [
        {"role": "user", "content": [{"type": "text", "text": "a"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "b", "signature": "c"},
                {"type": "tool_use", "id": "1", "name": "f", "input": {"type": "image"}},
            ],
        },
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "1", "content": "d"}],
        },
    ]
    for operation, question in ((RESPONSES, input_), (MESSAGES, turns)):
        members: dict[str, Any] = {operation.input_member: question}
        demand = _admit(operation, _PAYS, **members).demand
        assert demand is not None
        size = len(json.dumps(_ASKED[operation] | members))
        assert demand.most_input_tokens == size + INPUT_OVERHEAD_TOKENS


@pytest.mark.parametrize("operation", [MESSAGES, RESPONSES], ids=["messages", "responses"])
def test_a_budgets_cap_is_written_in_the_words_of_the_protocol(operation: Operation) -> None:
    """What a budget pays for is what the engine may write."""
    body = _admit(operation).body
    capped = json.loads(write_native_cap(body, operation, 7))
    assert capped == json.loads(body) | {operation.cap_member: 7}
