"""`penstock projects` against a control plane in memory."""

from tests.fakes.control_api import FakeControl, run, run_json


def two_chats(plane: FakeControl) -> None:
    """Have two organizations with a project `chat` each."""
    for name in ("acme", "globex"):
        organization = plane.state.add("organizations", name=name)
        plane.state.add("projects", name="chat", organization_id=organization["id"])


def test_create_prints_the_object(plane: FakeControl) -> None:
    """`projects create NAME --org NAME --json` prints the new project in that organization."""
    organization = plane.state.add("organizations", name="acme")
    (row,) = run_json(plane, "projects", "create", "chat", "--org", "acme")
    assert row["organization_id"] == organization["id"]
    (row,) = run_json(plane, "projects", "create", "search", "--org", organization["id"])
    assert row["name"] == "search"
    result = run(plane, "projects", "create", "third", "--org", "acme")
    assert "Created project third (prj_" in result.stdout
    assert "in organization acme" in result.stdout


def test_an_unknown_organization_says_how_to_create_it(plane: FakeControl) -> None:
    """An organization that is not there is exit code 1 with the command that makes it."""
    result = run(plane, "projects", "create", "chat", "--org", "big corp")
    assert result.exit_code == 1
    assert "There is no organization 'big corp'." in result.stderr
    assert "penstock orgs create 'big corp'" in result.stderr
    assert plane.state.changes() == []


def test_an_ambiguous_name_names_the_choices(plane: FakeControl) -> None:
    """A name that two organizations use is exit code 2 with ids, organizations and --org."""
    two_chats(plane)
    result = run(plane, "projects", "show", "chat")
    first, second = plane.state.rows["projects"]
    assert result.exit_code == 2
    assert f"{first['id']} in acme" in result.stderr
    assert f"{second['id']} in globex" in result.stderr
    assert "--org" in result.stderr

    assert run_json(plane, "projects", "show", "chat", "--org", "globex") == [second]
    assert run_json(plane, "projects", "show", first["id"]) == [first]


def test_an_id_of_elsewhere_is_not_found(plane: FakeControl) -> None:
    """An id of another organization than --org names is not found there."""
    two_chats(plane)
    first = plane.state.rows["projects"][0]
    result = run(plane, "projects", "show", first["id"], "--org", "globex")
    assert result.exit_code == 1
    assert "in organization globex" in result.stderr


def test_list_names_organizations(plane: FakeControl) -> None:
    """The table has names of organizations, and --org keeps to one."""
    two_chats(plane)
    result = run(plane, "projects", "list")
    assert "acme" in result.stdout
    assert "globex" in result.stdout
    (row,) = run_json(plane, "projects", "list", "--org", "globex")
    assert row == plane.state.rows["projects"][1]


def test_update_and_delete(plane: FakeControl) -> None:
    """A project is renamed, narrowed and archived by name; archiving needs a yes."""
    organization = plane.state.add("organizations", name="acme")
    row = plane.state.add("projects", name="chat", organization_id=organization["id"])
    run_json(plane, "projects", "update", "chat", "--name", "assistant", "--region", "eu-de")
    assert plane.state.changes()[0].body == {"name": "assistant", "allowed_regions": ["eu-de"]}
    assert "Regions        eu-de" in run(plane, "projects", "show", "assistant").stdout

    assert run(plane, "projects", "delete", "assistant").exit_code == 2
    assert row["status"] == "active"
    (answer,) = run_json(plane, "projects", "delete", "assistant", "--yes")
    assert answer["status"] == row["status"] == "archived"
