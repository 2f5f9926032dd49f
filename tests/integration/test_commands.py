"""The commands against the real control plane: what both say of each other cannot drift apart."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.control_api import run, run_json
from tests.fakes.control_server import ControlServer, serving_control


@pytest.fixture
def control(sqlite_template: Path, tmp_path: Path) -> Iterator[ControlServer]:
    """A control plane without any objects."""
    with serving_control(sqlite_template, tmp_path / "data") as server:
        yield server


def test_what_scripts_rely_on(control: ControlServer) -> None:
    """Each command that scripts rely on prints one object with the members that they read."""
    (organization,) = run_json(control, "orgs", "create", "acme")
    (project,) = run_json(control, "projects", "create", "chat", "--org", "acme")
    assert project["organization_id"] == organization["id"]
    (made,) = run_json(control, "keys", "create", "--project", "chat", "--name", "ci")
    (rotated,) = run_json(control, "keys", "rotate", made["id"], "--grace", "60s")
    assert rotated["id"] == made["id"]
    for secret in (made["secret"], rotated["secret"]):
        assert secret.startswith(f"ps_live_{made['id']}_")
    assert made["secret"] != rotated["secret"]
    assert run(control, "keys", "revoke", made["id"], "--yes").exit_code == 0
    (shown,) = run_json(control, "keys", "show", made["id"])
    assert shown["revoked_at"] is not None
    assert "secret" not in shown


def test_residency(control: ControlServer) -> None:
    """Organizations and projects are renamed, narrowed and opened again."""
    run_json(control, "orgs", "create", "acme")
    run_json(control, "projects", "create", "chat", "--org", "acme")
    for noun, name in (("projects", "chat"), ("orgs", "acme")):
        narrow = ("--data-class", "eu_only", "--region", "eu-de", "--region", "eu-fr")
        (row,) = run_json(control, noun, "update", name, *narrow)
        assert row["allowed_data_classes"] == ["eu_only"]
        assert row["allowed_regions"] == ["eu-de", "eu-fr"]
        assert "eu-de, eu-fr" in run(control, noun, "show", name).stdout
        (row,) = run_json(control, noun, "update", name, "--all-regions", "--name", "other")
        assert (row["name"], row["allowed_regions"]) == ("other", None)
        assert row["allowed_data_classes"] == ["eu_only"]


def _add_upstream(control: ControlServer, name: str, *more: str) -> dict[str, Any]:
    words = ("--endpoint", f"http://{name}:8000", *more)
    (row,) = run_json(control, "upstreams", "create", name, *words)
    return row


def test_an_upstream(control: ControlServer) -> None:
    """An upstream has what its options said, and loses what `none` takes away."""
    row = _add_upstream(
        control,
        "gpu",
        *("--endpoint", "http://b:8000", "--provider", "vllm", "--region", "eu-de"),
        *("--data-class", "eu_only", "--credential", "env:VLLM_KEY", "--header", "x-trace-*"),
        *("--max-connections", "10", "--tls-ca-file", "/etc/ca.pem"),
        *("--timeout-ms-connect", "1000", "--timeout-ms-idle", "2000"),
    )
    said = {
        "name": "gpu",
        "provider": "vllm",
        "endpoints": ["http://gpu:8000", "http://b:8000"],
        "region": "eu-de",
        "data_class": "eu_only",
        "credential_id": None,
        "credential_reference": "env:VLLM_KEY",
        "forward_headers": ["x-trace-*"],
        "max_connections": 10,
        "tls_ca_file": "/etc/ca.pem",
        "timeouts": {"connect_ms": 1000, "idle_ms": 2000},
        "is_disabled": False,
    }
    assert row.items() >= said.items()
    assert run_json(control, "upstreams", "list", "--region", "eu-de") == [row]
    assert run_json(control, "upstreams", "list", "--data-class", "none") == []

    none = [f"--{name}=none" for name in ("region", "data-class", "credential", "header")]
    changes = ("--tls-ca-file", "none", "--timeout-ms-idle", "3000", *none)
    (row,) = run_json(control, "upstreams", "update", "gpu", *changes)
    said |= dict.fromkeys(("region", "data_class", "credential_reference", "tls_ca_file"))
    said |= {"forward_headers": [], "timeouts": {"connect_ms": 1000, "idle_ms": 3000}}
    assert row.items() >= said.items()
    (row,) = run_json(control, "upstreams", "disable", "gpu")
    assert row["is_disabled"] is True
    assert "env:" not in run(control, "upstreams", "show", "gpu").stdout


def test_the_way_to_a_model(control: ControlServer) -> None:
    """From deployments to grants, all is made, shown with names, changed, and deleted in order."""
    _add_upstream(control, "gpu")
    for name in ("a", "b"):
        words = ("--upstream", "gpu", "--model", "m/x", "--max-output-tokens", "9")
        (row,) = run_json(control, "deployments", "create", name, *words, "--continuous-usage")
        assert (row["max_output_tokens"], row["continuous_usage"]) == (9, True)
    run_json(control, "deployments", "update", "b", "--final-usage", "--model", "m/y")
    (row,) = run_json(control, "deployments", "list", "--model", "m/y", "--upstream", "gpu")
    assert (row["name"], row["continuous_usage"]) == ("b", False)

    run_json(control, "routes", "create", "spare", "--choice", "b")
    words = ("--choice", "a=3", "--choice", "b=0", "--fallback", "spare")
    run_json(control, "routes", "create", "main", *words)
    shown = run(control, "routes", "show", "main").stdout
    assert "a=3, b=0" in shown
    assert "spare" in shown
    run_json(control, "aliases", "create", "chat", "--route", "spare", "--open")
    (row,) = run_json(control, "aliases", "update", "chat", "--route", "main", "--granted")
    assert row["is_open"] is False
    assert run_json(control, "aliases", "list", "--route", "main") == [row]

    run_json(control, "orgs", "create", "acme")
    run_json(control, "projects", "create", "web", "--org", "acme")
    (wide,) = run_json(control, "grants", "create", "--alias", "chat", "--org", "acme")
    (narrow,) = run_json(control, "grants", "create", "--alias", "chat", "--project", "web")
    assert run_json(control, "grants", "list", "--alias", "chat") == [wide, narrow]
    assert run_json(control, "grants", "show", narrow["id"]) == [narrow]
    again = run(control, "grants", "create", "--alias", "chat", "--org", "acme")
    assert again.exit_code == 1

    for kind, name in (("upstreams", "gpu"), ("deployments", "a"), ("aliases", "chat")):
        refused = run(control, kind, "delete", name, "--yes")
        assert refused.exit_code == 1, refused.output
        assert "err:control:catalog:in_use" in refused.stderr
    run_json(control, *["grants", "delete", "--alias", "chat", "--org", "acme", "--yes"])
    run_json(control, *["grants", "delete", "--alias", "chat", "--project", "web", "--yes"])
    for kind, name in (
        ("aliases", "chat"),
        ("routes", "main"),
        ("routes", "spare"),
        ("deployments", "a"),
        ("deployments", "b"),
    ):
        (gone,) = run_json(control, kind, "delete", name, "--yes")
        assert gone["is_deleted"] is True
    run_json(control, "upstreams", "delete", "gpu", "--yes")
    for kind in ("upstreams", "deployments", "routes", "aliases", "grants"):
        assert run_json(control, kind, "list") == []


def test_who_is_of_an_organization(control: ControlServer) -> None:
    """An administrator of an organization sees the aliases it may use, and no upstream."""
    _add_upstream(control, "gpu")
    run_json(control, *["deployments", "create", "a", "--upstream", "gpu", "--model", "m"])
    run_json(control, *["routes", "create", "main", "--choice", "a"])
    for alias in ("chat", "secret"):
        run_json(control, "aliases", "create", alias, "--route", "main")
    run_json(control, "orgs", "create", "acme")
    run_json(control, "projects", "create", "web", "--org", "acme")
    run_json(control, "grants", "create", "--alias", "chat", "--org", "acme")
    words = ["--project", "web", "--name", "admin", "--role", "org_admin", "--scope", "admin"]
    (key,) = run_json(control, "keys", "create", *words)
    theirs = control.as_(key["secret"])
    assert [row["name"] for row in run_json(theirs, "aliases", "list")] == ["chat"]
    assert "chat" in run(theirs, "aliases", "list").stdout
    assert "chat" in run(theirs, "grants", "list").stdout
    for words in (["upstreams", "list"], ["routes", "show", "main"], ["aliases", "show", "secret"]):
        refused = run(theirs, *words)
        assert refused.exit_code == 1
        assert "Traceback" not in refused.output


def test_providers(control: ControlServer) -> None:
    """Every provider that is listed can be given to an upstream."""
    providers = [row["name"] for row in run_json(control, "providers", "list")]
    assert "vllm" in providers
    for provider in providers:
        row = _add_upstream(control, f"of-{provider}", "--provider", provider)
        assert row["provider"] == provider


def test_credentials(control: ControlServer, tmp_path: Path) -> None:
    """Credentials of the platform and of an organization live, and no answer holds a secret."""
    path = tmp_path / "secret"
    path.write_text("sk-very-secret\n")
    file = ("--secret-file", str(path))
    words = ("credentials", "create", "vllm", "--provider", "vllm", *file)
    (platform,) = run_json(control, *words)
    row = _add_upstream(control, "gpu", "--provider", "vllm", "--credential", "vllm")
    assert row["credential_id"] == platform["id"]
    assert "vllm" in run(control, "upstreams", "show", "gpu").stdout
    run_json(control, "orgs", "create", "acme")
    (own,) = run_json(control, *words, "--org", "acme", "--upstream", "gpu")
    assert own["upstream_id"] == row["id"]
    assert run_json(control, "credentials", "list", "--provider", "vllm") == [platform, own]
    assert run_json(control, "credentials", "list", "--org", "acme") == [own]

    (row,) = run_json(control, "credentials", "set", "vllm", "--org", "acme", *file)
    assert row["version"] > own["version"]
    (row,) = run_json(control, "credentials", "update", own["id"], "--name", "own")
    assert row["name"] == "own"
    for command in (("rewrap",), ("rotate",), ("rotate", "--org", "acme")):
        (report,) = run_json(control, "credentials", *command)
        assert report["is_complete"] is True
    refused = run(control, "credentials", "delete", "vllm", "--yes")
    assert refused.exit_code == 1
    assert "gpu" in refused.stderr
    run_json(control, "credentials", "delete", "own", "--org", "acme", "--yes")
    run_json(control, "upstreams", "update", "gpu", "--credential", "none")
    run_json(control, "credentials", "delete", "vllm", "--yes")
    everything = run(control, "audit", "list", "--json").stdout
    assert "credential" in everything
    assert "sk-very-secret" not in everything
