"""`penstock members` and `penstock service-accounts` against a control plane in memory."""

from typing import Any

import pytest
from tests.fakes.control_api import FakeControl, run, run_json


@pytest.fixture
def project(plane: FakeControl) -> dict[str, Any]:
    """A project `chat` in the organization `acme`."""
    organization = plane.state.add("organizations", name="acme")
    return plane.state.add("projects", name="chat", organization_id=organization["id"])


def test_add_to_an_organization_or_project(plane: FakeControl, project: dict[str, Any]) -> None:
    """A role is given in an organization, or in a project that says where it is."""
    options = ("--org", "acme", "--role", "org_admin", "--email", "a@b.example")
    run_json(plane, "members", "add", "ada", *options)
    run_json(plane, *["members", "add", "ada", "--project", "chat", "--role", "developer"])
    place = {"organization_id": project["organization_id"]}
    assert [asked.body for asked in plane.state.changes()] == [
        {**place, "subject": "ada", "role": "org_admin", "email": "a@b.example"},
        {**place, "project_id": project["id"], "subject": "ada", "role": "developer"},
    ]


@pytest.mark.parametrize("command", ["members add", "service-accounts create"])
def test_a_role_needs_a_place(plane: FakeControl, command: str) -> None:
    """Without --org and --project it is exit code 2."""
    result = run(plane, *command.split(), "ada", "--role", "developer")
    assert result.exit_code == 2
    assert "--org" in result.stderr
    assert plane.state.asked == []


def test_members_are_found_by_subject(plane: FakeControl, project: dict[str, Any]) -> None:
    """A subject is enough where it has one role; else the choices are named."""
    place = {"organization_id": project["organization_id"], "subject": "auth0|ada"}
    whole = plane.state.add("members", role="auditor", **place)
    assert run_json(plane, "members", "show", "auth0|ada") == [whole]

    part = plane.state.add("members", role="developer", project_id=project["id"], **place)
    result = run(plane, "members", "show", "auth0|ada")
    assert result.exit_code == 2
    assert f"{whole['id']} in acme" in result.stderr
    assert f"{part['id']} in project chat" in result.stderr
    assert run_json(plane, "members", "show", "auth0|ada", "--project", "chat") == [part]
    assert run_json(plane, "members", "show", "auth0|ada", "--org", "acme") == [whole]


def test_update_and_remove(plane: FakeControl, project: dict[str, Any]) -> None:
    """A member gets another role, and is removed after a yes."""
    member = plane.state.add(
        "members", subject="ada", role="auditor", organization_id=project["organization_id"]
    )
    run_json(plane, *["members", "update", "ada", "--org", "acme", "--role", "org_owner"])
    assert member["role"] == "org_owner"
    assert run(plane, *["members", "remove", "ada", "--org", "acme"]).exit_code == 2
    (answer,) = run_json(plane, *["members", "remove", "ada", "--org", "acme", "--yes"])
    assert answer == {"id": member["id"], "subject": "ada", "is_removed": True}


@pytest.mark.parametrize("command", ["members", "service-accounts"])
def test_labels_are_added_and_taken_away(
    plane: FakeControl, project: dict[str, Any], command: str
) -> None:
    """By name, with the version that they were read at; and something must be said."""
    name = "subject" if command == "members" else "name"
    place = {"organization_id": project["organization_id"]}
    plane.state.add(command, **place, **{name: "ada"}, role="developer", labels={"a": "1"})
    update = (command, "update", "ada", "--org", "acme")
    (row,) = run_json(plane, *update, "--label", "team=search")
    assert row["labels"] == {"a": "1", "team": "search"}
    more = ("--label", "team=ads", "--remove-label", "a", "--role", "auditor")
    result = run(plane, *update, *more)
    assert "has the role auditor, and carries team=ads, now" in " ".join(result.stdout.split())
    assert [asked.headers["if-match"] for asked in plane.state.changes()] == ['"1"', '"2"']
    assert run(plane, *update).exit_code == 2
    assert run(plane, *update, "--label", "team").exit_code == 2


def test_list_members(plane: FakeControl, project: dict[str, Any]) -> None:
    """Members are listed with names of places, of one organization or project if asked for."""
    place = {"organization_id": project["organization_id"]}
    plane.state.add("members", subject="ada", role="auditor", **place)
    bob = plane.state.add("members", subject="bob", role="x", project_id=project["id"], **place)
    table = run(plane, "members", "list", "--org", "acme").stdout
    assert "acme" in table
    assert "chat" in table
    assert run_json(plane, "members", "list", "--project", "chat") == [bob]
    assert "no member in project chat" not in table


@pytest.mark.usefixtures("project")
def test_service_accounts(plane: FakeControl) -> None:
    """A machine is created, shown, given a role, disabled after a yes and enabled."""
    command = "service-accounts"
    (row,) = run_json(plane, *f"{command} create ci --org acme --role developer".split())
    account = plane.state.rows["service-accounts"][0]
    assert row["id"] == account["id"]
    assert run_json(plane, command, "show", "ci") == [account]
    assert "ci" in run(plane, command, "list").stdout
    run_json(plane, *f"{command} update ci --role auditor".split())
    assert account["role"] == "auditor"

    assert run(plane, command, "disable", "ci").exit_code == 2
    run_json(plane, command, "disable", "ci", "--yes")
    assert account["is_disabled"] is True
    assert "by operator" not in run(plane, command, "show", "ci").stdout
    account["is_disabled_by_operator"] = True
    assert "by operator" in run(plane, command, "show", "ci").stdout
    run_json(plane, command, "enable", "ci")
    assert account["is_disabled"] is False
