"""The commands of limits and plans, against a control plane in memory."""

from typing import Any

import pytest
from tests.fakes.control_api import FakeControl, problem, run, run_json

CONFLICT = problem(412, "err:control:storage:version_conflict", "It was changed meanwhile.")
EXIST = problem(409, "err:control:limits:exist", "They have limits already.")
REQUESTS = ("--metric", "requests")


@pytest.fixture
def owners(plane: FakeControl) -> dict[str, dict[str, Any]]:
    """One of each that can have limits, all of one organization."""
    add = plane.state.add
    organization = add("organizations", name="acme")
    place = {"organization_id": organization["id"]}
    project = add("projects", name="chat", **place)
    return {
        "org": organization,
        "project": project,
        "key": add("keys", name="web", project_id=project["id"], **place),
        "member": add("members", subject="ann", role="developer", **place),
        "service-account": add("service-accounts", name="bot", role="developer", **place),
    }


@pytest.mark.parametrize(
    ("option", "name", "member"),
    [
        ("org", "acme", "organization_id"),
        ("project", "chat", "project_id"),
        ("key", "web", "key_id"),
        ("member", "ann", "member_id"),
        ("service-account", "bot", "service_account_id"),
    ],
)
def test_everybody_can_be_named(
    plane: FakeControl, owners: dict[str, dict[str, Any]], option: str, name: str, member: str
) -> None:
    """Each is found by name, limited by the member that the API has for it, and shown."""
    row = owners[option]
    who = (f"--{option}", name)
    (rule,) = run_json(plane, "limits", "set", *who, *REQUESTS, "--limit", "5")
    assert rule[member] == row["id"]
    (asked,) = plane.state.changes()
    assert asked.body is not None
    assert asked.body[member] == row["id"]
    tokens = ("--metric", "tokens", "--limit", "9", "--window", "1d")
    assert run(plane, "limits", "set", *who, *tokens).stdout.startswith("9 tokens in 1d hold for ")
    (limits,) = plane.state.rows["limits"]
    assert [one["metric"] for one in limits["rules"]] == ["requests", "tokens"]
    shown = run(plane, "limits", "show", *who).stdout
    listed = run(plane, "limits", "list").stdout
    noun = {"org": "organization"}.get(option, option.replace("-", " "))
    for text in (shown, listed):
        assert noun in text
    assert "1d" in shown
    assert "7" in shown


def test_changes_of_others_are_taken_in(
    plane: FakeControl, owners: dict[str, dict[str, Any]]
) -> None:
    """A rule that is set while others change the same is set in what they have made of it."""
    plane.state.add(
        "limits", key_id=owners["key"]["id"], owner_kind="key", organization_id=owners["org"]["id"]
    )
    plane.state.refused_changes = [CONFLICT, EXIST]
    run_json(plane, "limits", "set", "--key", "web", *REQUESTS, "--limit", "5")
    (limits,) = plane.state.rows["limits"]
    assert [one["limit"] for one in limits["rules"]] == [5]
    assert [one.headers["if-match"] for one in plane.state.changes()] == ['"1"'] * 3
    plane.state.refused_changes = [CONFLICT] * 5
    result = run(plane, "limits", "set", "--key", "web", *REQUESTS, "--limit", "6")
    assert result.exit_code == 1
    assert "It was changed meanwhile." in result.output


@pytest.mark.parametrize(
    "words",
    [
        ("set", *REQUESTS, "--limit", "5"),
        ("set", "--key", "web", "--member", "ann", *REQUESTS, "--limit", "5"),
        ("set", "--key", "web", *REQUESTS),
        ("set", "--key", "web", *REQUESTS, "--limit", "5", "--until", "2h"),
        (
            "set",
            "--key",
            "web",
            *REQUESTS,
            "--limit",
            "5",
            "--raise-to",
            "9",
            "--until",
            "1999-01-01",
        ),
        ("remove", "--key", "web"),
        ("remove", "--key", "web", *REQUESTS, "--all"),
    ],
)
def test_what_is_not_said_is_not_guessed(
    plane: FakeControl, owners: dict[str, dict[str, Any]], words: tuple[str, ...]
) -> None:
    """Without an owner, with two, or with halves of what belongs together nothing is changed."""
    assert owners
    assert run(plane, "limits", *words).exit_code == 2
    assert plane.state.changes() == []


@pytest.mark.parametrize(
    "rule", ["requests", "requests=", "money=5", "requests=-5", "requests=5/60", "requests=5,x=1"]
)
def test_a_rule_that_is_none_is_refused(plane: FakeControl, rule: str) -> None:
    """`--rule` says what it should have been."""
    result = run(plane, "plans", "create", "gold", "--rule", rule)
    assert result.exit_code == 2
    assert plane.state.changes() == []
