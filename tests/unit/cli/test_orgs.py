"""`penstock orgs` against a control plane in memory."""

import json

import pytest
from tests.fakes.control_api import FakeControl, problem, run, run_json


def test_create_prints_the_object(plane: FakeControl) -> None:
    """`orgs create NAME --json` prints the new organization as one object with its id."""
    (row,) = run_json(plane, "orgs", "create", "Bäckerei 東京")
    assert row["id"] == plane.state.rows["organizations"][0]["id"]
    assert row["name"] == "Bäckerei 東京"

    result = run(plane, "orgs", "create", "acme")
    assert result.exit_code == 0
    assert "Created organization acme (org_" in result.stdout


def test_a_taken_name_is_told(plane: FakeControl) -> None:
    """A refusal shows control's sentence, its code and what to do, as words and as JSON."""
    run(plane, "orgs", "create", "acme")
    result = run(plane, "orgs", "create", "acme")
    assert result.exit_code == 1
    assert "There is one of this name already." in result.stderr
    assert "err:control:tenancy:name_taken" in result.stderr
    assert "Choose another name" in result.stderr
    assert "Traceback" not in result.output

    error = json.loads(run(plane, "orgs", "create", "acme", "--json").stderr)["error"]
    assert error["code"] == "err:control:tenancy:name_taken"
    assert error["remedy"]


def test_list_shows_every_page(plane: FakeControl) -> None:
    """`orgs list` shows all pages, as a table and one object a line, filtered by status."""
    for number in range(5):
        plane.state.add("organizations", name=f"org-{number}")
    plane.state.rows["organizations"][3]["status"] = "suspended"

    assert [row["name"] for row in run_json(plane, "orgs", "list")] == [
        f"org-{number}" for number in range(5)
    ]
    assert "org-4" in run(plane, "orgs", "list").stdout
    (suspended,) = run_json(plane, "orgs", "list", "--status", "suspended")
    assert suspended["name"] == "org-3"


def test_list_is_limited(plane: FakeControl) -> None:
    """With --limit no more is shown or asked for, and people are told that there is more."""
    for number in range(5):
        plane.state.add("organizations", name=f"org-{number}")
    assert len(run_json(plane, "orgs", "list", "--limit", "2")) == 2
    assert len(plane.state.asked) == 1

    result = run(plane, "orgs", "list", "--limit", "2")
    assert "org-1" in result.stdout
    assert "org-2" not in result.stdout
    assert "--limit" in result.stdout


def test_an_empty_list_is_a_sentence(plane: FakeControl) -> None:
    """Without any organization people get a sentence with the next step, programs nothing."""
    assert "penstock orgs create" in run(plane, "orgs", "list").stdout
    assert run_json(plane, "orgs", "list") == []


@pytest.mark.parametrize("how", ["name", "id"])
def test_show_takes_names_and_ids(plane: FakeControl, how: str) -> None:
    """An organization is found by its name and by its id."""
    plane.state.add("organizations", name="other")
    row = plane.state.add("organizations", name="acme")
    assert run_json(plane, "orgs", "show", row[how]) == [row]
    assert "2026-01-01 00:00:00" in run(plane, "orgs", "show", row[how]).stdout


def test_a_name_is_found_in_its_one_form(plane: FakeControl) -> None:
    """A name that was typed in decomposed Unicode finds the one that was stored composed."""
    plane.state.add("organizations", name="B\u00e4cker")
    assert run(plane, "orgs", "show", "Ba\u0308cker").exit_code == 0


def test_an_archived_one_is_found_by_id_only(plane: FakeControl) -> None:
    """The name of an archived organization is free, so it means the one that has it now."""
    old = plane.state.add("organizations", name="acme", status="archived")
    result = run(plane, "orgs", "show", "acme")
    assert result.exit_code == 1
    assert "There is no organization 'acme'." in result.stderr
    assert "penstock orgs create acme" in result.stderr
    new = plane.state.add("organizations", name="acme")
    assert run_json(plane, "orgs", "show", "acme") == [new]
    assert run_json(plane, "orgs", "show", old["id"]) == [old]


def test_nothing_is_not_everything(plane: FakeControl) -> None:
    """An empty name means nothing, even if there is one organization alone."""
    plane.state.add("organizations", name="acme")
    result = run(plane, "orgs", "delete", "", "--yes")
    assert result.exit_code == 1
    assert plane.state.changes() == []


def test_update_renames(plane: FakeControl) -> None:
    """`orgs update --name` gives another name to the same id, and leaves the rest as it is."""
    row = plane.state.add("organizations", name="acme")
    (renamed,) = run_json(plane, "orgs", "update", "acme", "--name", "acme-2")
    assert (renamed["id"], renamed["name"]) == (row["id"], "acme-2")
    assert plane.state.changes()[0].body == {"name": "acme-2"}


def test_update_says_where_data_may_go(plane: FakeControl) -> None:
    """--data-class and --region replace the lists, and the --all options open them again."""
    row = plane.state.add("organizations", name="acme")
    assert "Regions        all" in run(plane, "orgs", "show", "acme").stdout
    narrowed = ["--data-class", "eu_only", "--data-class", "public", "--region", "eu-de"]
    run_json(plane, "orgs", "update", "acme", *narrowed)
    assert row["allowed_data_classes"] == ["eu_only", "public"]
    assert "Data classes   eu_only, public" in run(plane, "orgs", "show", "acme").stdout
    run_json(plane, "orgs", "update", "acme", "--all-data-classes", "--all-regions")
    assert [asked.body for asked in plane.state.changes()] == [
        {"allowed_data_classes": ["eu_only", "public"], "allowed_regions": ["eu-de"]},
        {"allowed_data_classes": None, "allowed_regions": None},
    ]


@pytest.mark.parametrize(
    "arguments", ["", "--region eu-de --all-regions", "--data-class a --all-data-classes"]
)
def test_an_update_of_nothing_or_both_is_wrong_usage(plane: FakeControl, arguments: str) -> None:
    """An update that says nothing, or two opposite things, changes nothing."""
    plane.state.add("organizations", name="acme")
    assert run(plane, "orgs", "update", "acme", *arguments.split()).exit_code == 2
    assert plane.state.changes() == []


def test_suspend_and_resume(plane: FakeControl) -> None:
    """`orgs suspend` sends the reason and `orgs resume` undoes it."""
    plane.state.add("organizations", name="acme")
    (row,) = run_json(plane, "orgs", "suspend", "acme", "--reason", "overdue", "--yes")
    assert row["status"] == "suspended"
    assert plane.state.changes()[0].body == {"reason": "overdue"}
    (row,) = run_json(plane, "orgs", "resume", "acme")
    assert row["status"] == "active"


def test_delete_archives(plane: FakeControl) -> None:
    """`orgs delete --yes` archives, and --json says what became of it."""
    row = plane.state.add("organizations", name="acme")
    assert run_json(plane, "orgs", "delete", "acme", "--yes") == [
        {"id": row["id"], "name": "acme", "status": "archived"}
    ]
    assert row["status"] == "archived"


@pytest.mark.parametrize("command", ["suspend", "delete"])
def test_damage_needs_a_yes(plane: FakeControl, command: str) -> None:
    """Without a terminal and without --yes nothing is changed, and exit code 2 says so."""
    plane.state.add("organizations", name="acme")
    result = run(plane, "orgs", command, "acme")
    assert result.exit_code == 2
    assert "acme (org_" in result.stderr
    assert "--yes" in result.stderr
    assert plane.state.changes() == []


def test_every_change_has_an_idempotency_key(plane: FakeControl) -> None:
    """Each change carries an Idempotency-Key of its own, and questions carry none."""
    run(plane, "orgs", "create", "one")
    run(plane, "orgs", "create", "two")
    run(plane, "orgs", "update", "two", "--name", "three")
    keys = {asked.headers["idempotency-key"] for asked in plane.state.changes()}
    assert len(keys) == 3
    assert not any("idempotency-key" in a.headers for a in plane.state.asked if a.method == "GET")


def test_a_broken_connection_does_nothing_twice(plane: FakeControl) -> None:
    """When the connection breaks behind a change, it is sent again under the same key."""
    plane.state.breaks = 2
    run_json(plane, "orgs", "create", "acme")
    assert len(plane.state.changes()) == 3
    assert len({asked.headers["idempotency-key"] for asked in plane.state.changes()}) == 1
    assert len(plane.state.rows["organizations"]) == 1


def test_connections_that_always_break_are_told(plane: FakeControl) -> None:
    """When no answer ever comes, the error says that it may have been done all the same."""
    plane.state.breaks = 100
    result = run(plane, "orgs", "create", "acme")
    assert result.exit_code == 1
    assert "may have been done" in result.stderr


def test_a_busy_control_plane_is_asked_again(plane: FakeControl) -> None:
    """A 503 with Retry-After is waited for, and told when it does not end."""
    busy = problem(503, "err:control:storage:unavailable", "The database does not answer.")
    plane.state.refusals = [busy, busy]
    run_json(plane, "orgs", "create", "acme")
    plane.state.refusals = [busy] * 9
    result = run(plane, "orgs", "create", "bcme")
    assert result.exit_code == 1
    assert "err:control:storage:unavailable" in result.stderr
