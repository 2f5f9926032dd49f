"""The commands against the real control plane: what both say of each other cannot drift apart."""

from collections.abc import Iterator
from pathlib import Path

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
