"""The snapshot, looked up."""

from pathlib import Path

import msgspec
import pytest
from tests.fakes.worker_process import KEY, OTHER_KEY, PEPPER, build_runtime, make_snapshot

from penstock.contract.snapshot import (
    Alias,
    Choice,
    Deployment,
    Endpoint,
    Route,
    Snapshot,
    Upstream,
)
from penstock.gateway.admit import Admission, admit
from penstock.gateway.dialects.openai import COMPLETIONS, EMBEDDINGS
from penstock.gateway.errors import UNUSABLE
from penstock.gateway.offer import Offer, Target
from penstock.gateway.runtime import Principal, Runtime
from penstock.kit.errors import Refusal

_replace = msgspec.structs.replace
_ANYONE = Principal("key", "org-a", "project-a", None, None)


def _with_upstream(**members: object) -> Snapshot:
    """Return a snapshot whose upstream has these members."""
    snapshot = make_snapshot([1])
    return _replace(snapshot, upstreams=(_replace(snapshot.upstreams[0], **members),))


def _find(runtime: Runtime, alias: str = "model-a") -> Offer | Refusal | None:
    return runtime.find_offer(_ANYONE, msgspec.Raw(msgspec.json.encode(alias)))


def _target(snapshot: Snapshot, alias: str = "model-a") -> Target:
    """Return where an alias of the snapshot leads."""
    found = _find(build_runtime(snapshot, PEPPER), alias)
    assert isinstance(found, Offer)
    return found.first


def test_records_are_found() -> None:
    """Keys are found by what callers send, targets by alias and by alias as JSON."""
    runtime = build_runtime(make_snapshot([1], version=7), PEPPER)
    assert (runtime.version, runtime.created_s) == (7, 1_750_000_000)
    principal = runtime.find_principal(KEY.encode())
    assert principal is not None
    assert (principal.key_id, principal.aliases) == ("key-a", frozenset({"model-a"}))
    assert runtime.find_principal(KEY.encode()) is principal
    assert runtime.find_principal(b"another") is None
    offer = _find(runtime)
    assert isinstance(offer, Offer)
    assert _find(runtime) is offer
    target = offer.first
    assert (target.alias, target.deployment.name, target.upstream.name) == (
        "model-a",
        "main",
        "engine",
    )
    assert bytes(target.model) == b'"served-model"'


def test_beginnings_are_read_where_they_decide() -> None:
    """Of chats and completions, for upstreams with several endpoints, unless it is turned off."""
    question = "s" * 2_000
    body = {"model": "model-a", "prompt": question, "input": question}
    for engines, heeds_prefixes, operation, has_prefix in (
        ([1, 2], True, COMPLETIONS, True),
        ([1], True, COMPLETIONS, False),
        ([1, 2], False, COMPLETIONS, False),
        ([1, 2], True, EMBEDDINGS, False),
    ):
        runtime = build_runtime(make_snapshot(engines), PEPPER, heeds_prefixes=heeds_prefixes)
        found = admit(runtime, _ANYONE, operation, msgspec.json.encode(body))
        assert isinstance(found, Admission)
        assert (found.prefix is not None) is has_prefix


def test_names_are_found_however_json_writes_them() -> None:
    """An alias is found under every way in which JSON can write it."""
    snapshot = _replace(make_snapshot([1]), aliases=(Alias('a"b\\c/\u00e9', "main"),))
    runtime = build_runtime(snapshot, PEPPER)
    for written in ('"a\\"b\\\\c/\u00e9"', '"\\u0061\\"b\\\\c\\/\\u00e9"'):
        assert isinstance(runtime.find_offer(_ANYONE, msgspec.Raw(written.encode())), Offer)


def test_a_poisoned_record_disables_only_itself() -> None:
    """A key whose record makes no sense is unknown, and others work on."""
    snapshot = make_snapshot([1])
    bad = _replace(snapshot.keys[0], networks=("no network",))
    runtime = build_runtime(_replace(snapshot, keys=(bad, snapshot.keys[1])), PEPPER)
    assert runtime.find_principal(KEY.encode()) is None
    assert runtime.find_principal(OTHER_KEY.encode()) is not None


def test_the_upstreams_model_is_json() -> None:
    """A model name of the upstream's cannot leave its string."""
    snapshot = make_snapshot([1])
    deployments = (Deployment("main", "engine", 'a","stream":true,"b":"'),)
    model = _target(_replace(snapshot, deployments=deployments)).model
    assert msgspec.json.decode(model) == 'a","stream":true,"b":"'


def test_credentials_are_resolved(tmp_path: Path) -> None:
    """A credential is read where the reference says, once."""
    (tmp_path / "token").write_text(" sk-1\n")
    snapshot = _with_upstream(credential=f"file:{tmp_path / 'token'}")
    assert _target(snapshot).authorization == b"authorization: Bearer sk-1\r\n"
    assert _target(make_snapshot([1])).authorization == b""


@pytest.mark.parametrize(
    "content",
    [None, "", " \n", "sk-1\r\nx-evil: 1", "sk-1\nx", "sk-\u00e9", "sk-\x00", "a b"],
)
def test_what_is_no_token_is_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str | None
) -> None:
    """A credential that is absent, or could not stand in one header line, is named, not shown."""
    if content is not None:
        (tmp_path / "token").write_text(content)
    runtime = build_runtime(_with_upstream(credential=f"file:{tmp_path / 'token'}"), PEPPER)
    for _ in range(3):
        assert _find(runtime) == Refusal(UNUSABLE)
    assert UNUSABLE.status == 503
    (line,) = caplog.messages
    assert "token" in line
    assert "sk-" not in line
    (tmp_path / "token").write_text("sk-2")
    assert isinstance(_find(runtime), Offer), "it is looked for again"


def test_dangling_references_lead_nowhere() -> None:
    """An alias whose references lead nowhere is as good as absent."""
    snapshot = make_snapshot([1])
    for broken in (
        _replace(snapshot, aliases=(Alias("model-a", "no-such"),)),
        _replace(snapshot, routes=(Route("main", (Choice("no-such"),)),)),
        _replace(snapshot, deployments=(Deployment("main", "no-such", "x"),)),
    ):
        assert _find(build_runtime(broken, PEPPER)) is None


def test_headers_to_forward_are_joined() -> None:
    """What any upstream wants forwarded is kept, each passes on its own."""
    snapshot = make_snapshot([1])
    other = Upstream(
        "other",
        "vllm",
        (Endpoint("http", "127.0.0.1", 2),),
        forward_headers=("X-Trace", "x-emulator-*"),
    )
    runtime = build_runtime(_replace(snapshot, upstreams=(*snapshot.upstreams, other)), PEPPER)
    assert runtime.forward_names == frozenset({b"x-trace"})
    assert runtime.forward_prefixes == (b"x-emulator-",)
    assert _target(snapshot).upstream.forward_names == frozenset()


def test_tls_is_verified() -> None:
    """An https endpoint is spoken to with a verifying context, others with none."""
    snapshot = _with_upstream(endpoints=(Endpoint("https", "engine.test", 443),))
    tls = _target(snapshot).upstream.tls
    assert tls is not None
    assert tls.check_hostname
    assert tls.verify_mode.name == "CERT_REQUIRED"
    assert _target(make_snapshot([1])).upstream.tls is None


def test_engines_that_are_fair_know_organizations_by_pseudonyms() -> None:
    """Each by its own, told to those engines alone."""
    snapshot = _with_upstream(provider="llm_d")
    runtime = build_runtime(snapshot, PEPPER)
    lines = []
    for organization in ("org-a", "org-b"):
        caller = _replace(_ANYONE, organization=organization)
        found = runtime.find_offer(caller, msgspec.Raw(b'"model-a"'))
        assert isinstance(found, Offer)
        name = runtime.pseudonym(organization, b"fairness\0")
        assert found.first.fairness_line == b"x-llm-d-inference-fairness-id: %b\r\n" % name
        lines.append(found.first.fairness_line)
    assert lines[0] != lines[1]
    assert _target(_with_upstream(provider="vllm")).fairness_line == b""
