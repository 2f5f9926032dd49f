"""The snapshot, indexed."""

from pathlib import Path

import msgspec
import pytest
from tests.fakes.worker_process import KEY, PEPPER, make_snapshot

from penstock.access.rules import key_mac
from penstock.contract.snapshot import Alias, Endpoint, Route, Snapshot, Upstream
from penstock.gateway.runtime import build_runtime
from penstock.kit.secrets import SecretUnavailableError

_replace = msgspec.structs.replace


def _with_upstream(**members: object) -> Snapshot:
    """Return a snapshot whose upstream has these members."""
    snapshot = make_snapshot([1])
    return _replace(snapshot, upstreams=(_replace(snapshot.upstreams[0], **members),))


def test_a_snapshot_is_indexed() -> None:
    """Keys are found by their hash, targets by alias and by alias as JSON."""
    runtime = build_runtime(make_snapshot([1], version=7), PEPPER)
    assert (runtime.version, runtime.created_s) == (7, 1_750_000_000)
    principal = runtime.principals[key_mac(PEPPER, KEY.encode())]
    assert (principal.key_id, principal.aliases) == ("key-a", frozenset({"model-a"}))
    target = runtime.targets["model-a"]
    assert runtime.targets_by_json[b'"model-a"'] is target
    assert (target.alias, target.route.name, target.upstream.name) == ("model-a", "main", "engine")
    assert bytes(target.model) == b'"served-model"'
    assert KEY.encode() not in runtime.principals


def test_names_are_indexed_as_json_writes_them() -> None:
    """An alias with characters that JSON escapes is found under its escaped form."""
    snapshot = make_snapshot([1])
    aliases = (Alias('a"b\\c/\u00e9', "main"),)
    runtime = build_runtime(_replace(snapshot, aliases=aliases), PEPPER)
    assert set(runtime.targets_by_json) == {'"a\\"b\\\\c/\u00e9"'.encode()}


def test_the_upstreams_model_is_json() -> None:
    """A model name of the upstream's cannot leave its string."""
    snapshot = make_snapshot([1])
    routes = (Route("main", "engine", 'a","stream":true,"b":"'),)
    runtime = build_runtime(_replace(snapshot, routes=routes), PEPPER)
    model = runtime.targets["model-a"].model
    assert msgspec.json.decode(model) == 'a","stream":true,"b":"'


def test_credentials_are_resolved(tmp_path: Path) -> None:
    """A credential is read where the reference says, once."""
    (tmp_path / "token").write_text(" sk-1\n")
    snapshot = _with_upstream(credential=f"file:{tmp_path / 'token'}")
    upstream = build_runtime(snapshot, PEPPER).targets["model-a"].upstream
    assert upstream.authorization == b"authorization: Bearer sk-1\r\n"
    assert (
        build_runtime(make_snapshot([1]), PEPPER).targets["model-a"].upstream.authorization == b""
    )


@pytest.mark.parametrize("content", [None, "", " \n"])
def test_a_missing_credential_is_an_error(tmp_path: Path, content: str | None) -> None:
    """A snapshot whose credential is not there is not served from."""
    if content is not None:
        (tmp_path / "token").write_text(content)
    with pytest.raises(SecretUnavailableError, match="token"):
        build_runtime(_with_upstream(credential=f"file:{tmp_path / 'token'}"), PEPPER)


@pytest.mark.parametrize("secret", ["sk-1\r\nx-evil: 1", "sk-1\nx", "sk-\u00e9", "sk-\x00", "a b"])
def test_a_credential_that_is_no_token_is_an_error(tmp_path: Path, secret: str) -> None:
    """A credential that could not stand in one header line is refused, and not repeated."""
    (tmp_path / "token").write_text(secret)
    with pytest.raises(SecretUnavailableError) as raised:
        build_runtime(_with_upstream(credential=f"file:{tmp_path / 'token'}"), PEPPER)
    assert "sk-" not in str(raised.value)


def test_dangling_references_are_errors() -> None:
    """A snapshot whose references lead nowhere is not served from."""
    snapshot = make_snapshot([1])
    for broken in (
        _replace(snapshot, aliases=(Alias("model-a", "no-such"),)),
        _replace(snapshot, routes=(Route("main", "no-such", "x"),)),
    ):
        with pytest.raises(KeyError, match="no-such"):
            build_runtime(broken, PEPPER)


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
    assert runtime.targets["model-a"].upstream.forward_names == frozenset()


def test_tls_is_verified() -> None:
    """An https endpoint is spoken to with a verifying context, others with none."""
    snapshot = _with_upstream(endpoints=(Endpoint("https", "engine.test", 443),))
    tls = build_runtime(snapshot, PEPPER).targets["model-a"].upstream.tls
    assert tls is not None
    assert tls.check_hostname
    assert tls.verify_mode.name == "CERT_REQUIRED"
    assert build_runtime(make_snapshot([1]), PEPPER).targets["model-a"].upstream.tls is None
