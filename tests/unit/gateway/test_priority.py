"""Whose request goes first at an engine, and how each kind is told."""

import json
from typing import Any

import msgspec
import pytest
from tests.fakes.worker_process import PEPPER, build_runtime, make_snapshot

from penstock.engines.isolation import STEERING
from penstock.gateway.admit import Admission, admit, readdress
from penstock.gateway.dialects.openai import CHAT
from penstock.gateway.runtime import Principal, Runtime

URGENT = frozenset({"inference", "inference:priority"})


def _runtime(provider: str, *, takes_priority: bool = True) -> Runtime:
    plain = make_snapshot([9])
    upstream = msgspec.structs.replace(
        plain.upstreams[0], provider=provider, takes_priority=takes_priority
    )
    return build_runtime(msgspec.structs.replace(plain, upstreams=(upstream,)), PEPPER)


def _admit(
    runtime: Runtime, priority: str, scopes: frozenset[str] = frozenset({"inference"})
) -> Admission:
    principal = Principal("key", "org-a", "project-a", None, None, scopes=scopes)
    head = '{"model":"model-a","messages":[{"role":"user","content":"x"}],"nvext":{"a":1}'
    admission = admit(runtime, principal, CHAT, f'{head},"priority":{priority}}}'.encode())
    assert isinstance(admission, Admission)
    return admission


def _said(admission: Admission) -> dict[str, Any]:
    members = json.loads(admission.body)
    return {name: members[name] for name in ("priority", "nvext") if name in members}


@pytest.mark.parametrize(
    ("provider", "said"),
    [
        ("vllm", {"priority": -7}),
        ("sglang", {"priority": 7}),
        ("dynamo", {"nvext": {"agent_hints": {"priority": 7}}}),
        ("trtllm", {}),
        ("openai_compatible", {}),
    ],
)
def test_each_kind_is_told_in_its_way(provider: str, said: dict[str, Any]) -> None:
    """The larger number is the sooner, whichever way the engine counts; nobody else is told."""
    assert _said(_admit(_runtime(provider), "7", URGENT)) == said
    assert _said(_admit(_runtime(provider, takes_priority=False), "7", URGENT)) == {}


@pytest.mark.parametrize(
    ("asked", "plain", "granted"),
    [
        ("5", {}, {"priority": 5}),
        ("1000", {}, {"priority": 100}),
        ("-3", {"priority": -3}, {"priority": -3}),
        ("-1000", {"priority": -100}, {"priority": -100}),
        ("0", {}, {}),
        ("null", {}, {}),
        ("1.5", {}, {}),
        ('"9"', {}, {}),
        ("true", {}, {}),
        ("9" * 40, {}, {"priority": 100}),
    ],
)
def test_nobody_goes_first_by_themselves(
    asked: str, plain: dict[str, Any], granted: dict[str, Any]
) -> None:
    """Without the operator's scope a request can only wait; what is no number says nothing."""
    runtime = _runtime("sglang")
    assert _said(_admit(runtime, asked)) == plain
    assert _said(_admit(runtime, asked, URGENT)) == granted


def test_another_target_is_told_in_its_own_way() -> None:
    """What was said to the first engine does not reach the next one, which has other words."""
    admission = _admit(_runtime("vllm"), "7", URGENT)
    for provider, said in (
        ("dynamo", {"nvext": {"agent_hints": {"priority": 7}}}),
        ("openai_compatible", {}),
        ("sglang", {"priority": 7}),
    ):
        other = _admit(_runtime(provider), "0").target
        again = readdress(admission, other)
        assert again is not None
        assert _said(again) == said
        admission = again


def test_what_steers_is_still_out() -> None:
    """A key that may go first may say nothing else of what steers an engine."""
    members = json.loads(_admit(_runtime("vllm"), "7", URGENT).body)
    assert STEERING.intersection(members) == {"priority", "cache_salt"}
