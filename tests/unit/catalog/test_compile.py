"""Compiling a configuration to a snapshot."""

from pathlib import Path

import pytest

from penstock.access.rules import key_mac
from penstock.catalog.compile import compile_snapshot, find_unsupported
from penstock.catalog.errors import PlatformFileError
from penstock.catalog.model import PlatformFile
from penstock.catalog.platform_file import parse
from penstock.contract.snapshot import (
    Alias,
    Choice,
    Deployment,
    Endpoint,
    Grant,
    Key,
    OwnedPolicy,
    Policy,
    Route,
    Snapshot,
    Timeouts,
    Upstream,
)
from penstock.contract.snapshot_store import records_of
from penstock.kit.secrets import SecretUnavailableError

FOLDER = Path("/conf")
TEXT = """\
version: 1
organizations: [{name: dev}]
projects: [{name: playground, organization: dev}]
keys:
  - {name: one, project: playground, secret: file:secrets/one}
  - name: two
    project: playground
    secret: env:TWO
    aliases: [a]
    expires_at: 2030-01-31T01:00:00+01:00
upstreams:
  - name: u
    provider: vllm
    endpoints: ["http://h:8000-8001/p"]
    credential: file:secrets/token
    timeouts: {idle_ms: 5}
    max_connections: 9
    kv_events: 5557
routes:
  - {name: r, upstream: u, model: M, continuous_usage: true, max_output_tokens: 10, tokenizer: t}
  - {name: l, upstream: u, model: L, adapter_of: M, adapter_path: /adapters/l}
aliases: [{name: a, route: r}]
"""
SECRETS = {
    "file:/conf/secrets/one": "the-first-secret-of-all",
    "env:TWO": "the-second-secret-of-all",
    "file:/conf/secrets/token": "token",
}
WIDE = """\
version: 1
organizations: [{name: "\u00dc", allowed_regions: [eu]}]
projects: [{name: p, organization: "\u00dc", allowed_data_classes: [secret]}]
keys:
  - {name: "k 1", project: p, secret: env:TWO, networks: [10.0.0.0/8], role: auditor,
     scopes: [admin, inference]}
credentials: [{name: main, provider: vllm, secret: file:secrets/token}]
upstreams:
  - {name: u, provider: vllm, endpoints: [http://h], region: eu, data_class: secret,
     credential: main}
  - {name: off, endpoints: [http://g], is_disabled: true}
deployments:
  - {name: d, upstream: u, model: m}
  - {name: e, upstream: off, model: m, credential: main}
  - {name: f, upstream: u, model: m, is_disabled: true}
routes:
  - {name: r, deployments: [{deployment: d, weight: 2}, {deployment: f, weight: 0}], fallback: s}
  - {name: s, upstream: u, model: x}
aliases: [{name: a, route: r, is_open: false}]
grants: [{alias: a, organization: "\u00dc"}, {alias: a, organization: "\u00dc", project: p}]
"""


class Secrets(dict[str, str]):
    """Secrets by reference."""

    def resolve(self, reference: str) -> str:
        """Return one, or fail as the real resolver does."""
        if reference not in self:
            message = f"cannot read the secret {reference}"
            raise SecretUnavailableError(message)
        return self[reference]


def platform() -> PlatformFile:
    """Return the parsed text."""
    return parse(TEXT, source="penstock.yaml", folder=FOLDER)


def compiled(secrets: dict[str, str]) -> Snapshot:
    """Return the snapshot with these secrets."""
    return compile_snapshot(
        platform(),
        version=3,
        created_at_ns=9,
        pepper=b"pepper",
        resolve_secret=Secrets(secrets).resolve,
    )


def test_a_snapshot_holds_everything_and_no_secret() -> None:
    """The snapshot is complete, keeps references to credentials, and hashes keys."""
    snapshot = compiled(SECRETS)
    assert snapshot == Snapshot(
        version=3,
        created_at_ns=9,
        keys=(
            Key("one", key_mac(b"pepper", b"the-first-secret-of-all"), "dev", "playground"),
            Key(
                "two",
                key_mac(b"pepper", b"the-second-secret-of-all"),
                "dev",
                "playground",
                ("a",),
                1_896_048_000,
            ),
        ),
        upstreams=(
            Upstream(
                "u",
                "vllm",
                (Endpoint("http", "h", 8000, "/p"), Endpoint("http", "h", 8001, "/p")),
                credential="file:/conf/secrets/token",
                timeouts=Timeouts(idle_ms=5),
                max_connections=9,
                kv_events="5557",
            ),
        ),
        deployments=(
            Deployment(
                "r",
                "u",
                "M",
                continuous_usage=True,
                max_output_tokens=10,
                tokenizer="/conf/t",
            ),
            Deployment("l", "u", "L", adapter_of="M", adapter_path="/adapters/l"),
        ),
        routes=(Route("r", (Choice("r"),)), Route("l", (Choice("l"),))),
        aliases=(Alias("a", "r"),),
    )
    content = b"".join(records_of(snapshot).values())
    assert not any(secret.encode() in content for secret in SECRETS.values() if secret != "token")


def test_the_wider_format_is_compiled_too() -> None:
    """Weights, fallbacks, grants, residency and credentials by name reach the workers."""
    parsed = parse(WIDE, source="penstock.yaml", folder=FOLDER)
    assert list(find_unsupported(parsed)) == []
    snapshot = compile_snapshot(
        parsed,
        version=1,
        created_at_ns=0,
        pepper=b"pepper",
        resolve_secret=Secrets(SECRETS).resolve,
    )
    (key,) = snapshot.keys
    assert (key.organization, key.project, key.id) == ("\u00dc", "p", "k 1")
    assert (key.networks, key.scopes) == (("10.0.0.0/8",), ("admin",)), "auditors call no models"
    (upstream,) = snapshot.upstreams
    assert (upstream.region, upstream.data_class) == ("eu", "secret")
    assert upstream.credential == "file:/conf/secrets/token"
    assert {deployment.name: deployment.credential for deployment in snapshot.deployments} == {
        "d": None,
        "e": "file:/conf/secrets/token",
        "s": None,
    }
    assert snapshot.routes == (
        Route("r", (Choice("d", 2), Choice("f", 0)), "s"),
        Route("s", (Choice("s"),)),
    )
    assert snapshot.aliases == (Alias("a", "r", is_open=False),)
    assert snapshot.grants == (Grant("a", "\u00dc"), Grant("a", "\u00dc", "p"))
    assert snapshot.policies == (
        OwnedPolicy(Policy(regions=("eu",)), "\u00dc"),
        OwnedPolicy(Policy(data_classes=("secret",)), "\u00dc", "p"),
    )
    records = records_of(snapshot)
    assert b"ga\0\xc3\x9c\0p" in records
    assert b"p\xc3\x9c" in records


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("credentials:", "members: [{subject: s, organization: Ü, role: auditor}]\ncredentials:",
         "members[0]: is nothing that a node without a control plane can use; take it out, or"),
        ("credentials:",
         "service_accounts: [{name: s, organization: Ü, role: auditor}]\ncredentials:",
         "service_accounts[0]: is nothing that a node"),
        ("secret: file:secrets/token}",
         "secret: env:TWO}, {name: b, provider: vllm, organization: Ü}",
         "credentials[1].organization: is nothing"),
        (", secret: file:secrets/token", "", "credentials[0]: has no secret, and nobody else"),
        (", secret: env:TWO", "", "keys[0]: has no secret, and nobody else knows it; take"),
        ("role: auditor", "rotation: {interval_s: 3600}", "keys[0].rotation: is nothing that a"),
        ("name: p, ", f"name: {'ü' * 96}, ", "projects[0].name: is longer than 190 bytes"),
    ],
)  # fmt: skip
def test_what_only_a_control_plane_can_use_is_said(old: str, new: str, expected: str) -> None:
    """A node that serves from the file alone refuses what it would have to ignore."""
    text = WIDE.replace(old, new, 1).replace(
        "project: p", f"project: {'ü' * 96}" if "ü" in new else "project: p"
    )
    parsed = parse(text, source="penstock.yaml", folder=FOLDER)
    assert any(expected in str(finding) for finding in find_unsupported(parsed))


def test_the_same_input_gives_the_same_snapshot() -> None:
    """Compiling is pure."""
    assert compiled(SECRETS) == compiled(SECRETS)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"env:TWO": "fifteen-charact"}, "keys[1].secret: has 15 characters and can be guessed"),
        ({"env:TWO": "with spaces in the middle"}, "keys[1].secret: holds characters that no"),
        ({"env:TWO": "with-\x01-in-the-middle"}, "keys[1].secret: holds characters that no"),
        (
            {"env:TWO": "the-first-secret-of-all"},
            "keys[1].secret: is the same secret as that of one",
        ),
        ({"file:/conf/secrets/token": "a\r\nb: c"}, "upstreams[0].credential: holds characters"),
    ],
)
def test_unusable_secrets_are_findings(change: dict[str, str], expected: str) -> None:
    """Short, repeated and unsendable secrets are refused without being shown."""
    with pytest.raises(PlatformFileError) as caught:
        compiled(SECRETS | change)
    (finding,) = caught.value.findings
    assert expected in str(finding)
    assert not any(secret in str(finding) for secret in change.values())


def test_all_missing_secrets_are_reported_at_once() -> None:
    """Every reference that leads nowhere is a finding, with the way to mend it."""
    with pytest.raises(PlatformFileError) as caught:
        compiled({})
    shown = [str(finding) for finding in caught.value.findings]
    assert [line.split(": ")[1] for line in shown] == [
        "keys[0].secret",
        "keys[1].secret",
        "upstreams[0].credential",
    ]
    assert "env:TWO; set it" in shown[1]
    assert "create it or correct the path" in shown[2]
