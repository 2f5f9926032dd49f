"""`penstock audit` against a control plane in memory."""

from typing import Any

from tests.fakes.control_api import FakeControl, run, run_json


def entry(number: int, **members: Any) -> dict[str, Any]:
    """Return an entry as the API gives it."""
    return {
        "organization_id": None,
        "number": number,
        "recorded_at": f"2026-01-01T00:00:{number:02}.000000Z",
        "actor_kind": "admin_token",
        "actor_id": "admin_token",
        "action": "key.rotate",
        "resource_kind": "key",
        "resource_id": f"key-{number}",
        "outcome": "done",
        "detail": "",
        "address": None,
        **members,
    }


def test_list_shows_the_latest(plane: FakeControl) -> None:
    """With --limit the latest entries are shown, oldest first."""
    plane.state.rows["audit"] = [entry(number) for number in range(1, 6)]
    numbers = [row["number"] for row in run_json(plane, "audit", "list", "--limit", "2")]
    assert numbers == [4, 5]
    assert len(run_json(plane, "audit", "list")) == 5
    table = run(plane, "audit", "list", "--limit", "2").stdout
    assert "key-5" in table
    assert "key-1" not in table
    assert "2026-01-01 00:00:05" in table


def test_list_is_filtered(plane: FakeControl) -> None:
    """Every filter goes to the API under its own name, the organization as its id."""
    organization = plane.state.add("organizations", name="acme")
    wanted = entry(1, organization_id=organization["id"], outcome="denied")
    plane.state.rows["audit"] = [entry(2), wanted]
    options = "--org acme --resource key-1 --actor admin_token --action key.rotate"
    assert run_json(plane, *f"audit list {options} --outcome denied".split()) == [wanted]
    query = plane.state.asked[-1].query
    del query["limit"]
    assert query == {
        "organization_id": organization["id"],
        "resource": "key-1",
        "actor": "admin_token",
        "action": "key.rotate",
        "outcome": "denied",
    }


def test_an_intact_record(plane: FakeControl) -> None:
    """A whole record is exit code 0 with what was looked at."""
    result = run(plane, "audit", "verify")
    assert result.exit_code == 0
    assert "12 entries, 3 signed checkpoints" in result.stdout
    assert "cut off" not in result.stdout
    assert run_json(plane, "audit", "verify") == [plane.state.verification]


def test_a_record_without_checkpoints(plane: FakeControl) -> None:
    """Without a signed checkpoint people are told what would go unseen."""
    plane.state.verification.update(checkpoints=0)
    assert "cut off would not be seen" in run(plane, "audit", "verify").stdout


def test_an_empty_record(plane: FakeControl) -> None:
    """Who looks at the platform's record and finds nothing is told of those of organizations."""
    assert "--org ORG" in run(plane, "audit", "list").stdout


def test_a_broken_record(plane: FakeControl) -> None:
    """A broken record is exit code 1 and names the first broken link, its owner and why."""
    organization = plane.state.add("organizations", name="acme")
    broken = {"organization_id": organization["id"], "number": 7, "reason": "it was edited"}
    plane.state.verification.update(is_intact=False, broken=broken)
    result = run(plane, "audit", "verify", "--org", "acme")
    assert result.exit_code == 1
    assert "at entry 7 of organization acme: it was edited" in result.stdout
    assert plane.state.changes()[0].body == {"organization_id": organization["id"]}
    assert run(plane, "audit", "verify", "--json").exit_code == 1
