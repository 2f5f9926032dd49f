"""`penstock keys` against a control plane in memory."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.fakes.control_api import SECRET, FakeControl, problem, run, run_json


@pytest.fixture
def key(plane: FakeControl) -> dict[str, Any]:
    """A key `ci` in the project `chat` of the organization `acme`."""
    organization = plane.state.add("organizations", name="acme")
    project = plane.state.add("projects", name="chat", organization_id=organization["id"])
    return plane.state.add(
        "keys", name="ci", organization_id=organization["id"], project_id=project["id"]
    )


@pytest.mark.usefixtures("key")
def test_create_prints_id_and_secret(plane: FakeControl) -> None:
    """`keys create --project NAME --name N --json` prints one object with `id` and `secret`."""
    (row,) = run_json(plane, "keys", "create", "--project", "chat", "--name", "one")
    assert row["secret"] == SECRET.format(row["id"])
    assert plane.state.changes()[0].body == {
        "project_id": plane.state.rows["projects"][0]["id"],
        "name": "one",
    }


def test_due_lists_what_somebody_must_look_after(plane: FakeControl, key: dict[str, Any]) -> None:
    """`keys due` names key, secret and what to do; with --json it prints what control said."""
    assert "No secret is due." in run(plane, "keys", "due").stdout
    key["labels"] = {"due": "rotation_due"}
    result = run(plane, "keys", "due", "--org", "acme")
    assert result.exit_code == 0, result.output
    assert "rotate it" in result.stdout
    assert "sec_000000000001" in result.stdout
    (row,) = run_json(plane, "keys", "due")
    assert (row["reason"], row["key_id"]) == ("rotation_due", key["id"])


def test_peppers_are_counted(plane: FakeControl) -> None:
    """`keys peppers` shows how many secrets are hashed under each pepper."""
    result = run(plane, "keys", "peppers")
    assert result.exit_code == 0, result.output
    assert "7" in result.stdout
    (row,) = run_json(plane, "keys", "peppers")
    assert (row["id"], row["secrets"]) == (1, 7)


@pytest.mark.usefixtures("key")
def test_a_key_of_a_member(plane: FakeControl) -> None:
    """`--member` finds the person by subject; a key has one owner."""
    organization = plane.state.rows["organizations"][0]
    ada = plane.state.add("members", subject="ada", organization_id=organization["id"])
    create = ("keys", "create", "--project", "chat", "--name", "one", "--member", "ada")
    run_json(plane, *create)
    body = plane.state.changes()[0].body
    assert body is not None
    assert body["member_id"] == ada["id"]
    result = run(plane, *create, "--service-account", "nightly")
    assert result.exit_code == 2
    assert "exclude each other" in result.output


@pytest.mark.usefixtures("key")
def test_create_shows_the_secret_once(plane: FakeControl) -> None:
    """People see the secret on a line of its own and that it will not be shown again."""
    result = run(plane, "keys", "create", "--project", "chat", "--name", "one")
    secret = SECRET.format(plane.state.rows["keys"][-1]["id"])
    assert secret in [line.strip() for line in result.stdout.splitlines()]
    assert "never again" in result.stdout
    assert "Created key one" in result.stdout


@pytest.mark.usefixtures("key")
def test_create_sends_every_option(plane: FakeControl) -> None:
    """Each option of a new key becomes the member that the API has for it."""
    account = plane.state.add(
        "service-accounts",
        name="nightly",
        organization_id=plane.state.rows["organizations"][0]["id"],
    )
    run_json(
        plane,
        *("keys", "create", "--project", "chat", "--name", "one", "--role", "developer"),
        *("--scope", "inference", "--scope", "admin", "--alias", "small", "--alias", "large"),
        *("--cidr", "10.0.0.0/8", "--label", "stage=test", "--label", "note=a=b"),
        *("--expires", "2100-01-31", "--rotate-every", "90d", "--rotate-grace", "7d"),
        *("--service-account", "nightly", "--test"),
    )
    body = plane.state.changes()[0].body
    assert body is not None
    del body["project_id"]
    assert body == {
        "name": "one",
        "role": "developer",
        "scopes": ["inference", "admin"],
        "allowed_aliases": ["small", "large"],
        "allowed_cidrs": ["10.0.0.0/8"],
        "labels": {"stage": "test", "note": "a=b"},
        "expires_at": "2100-01-31T00:00:00.000000Z",
        "is_live": False,
        "rotation_interval_s": 7_776_000,
        "rotation_grace_s": 604_800,
        "service_account_id": account["id"],
    }


@pytest.mark.usefixtures("key")
def test_an_expiry_may_be_a_duration(plane: FakeControl) -> None:
    """`--expires 24h` is a day from now."""
    before = datetime.now(UTC)
    run_json(plane, *["keys", "create", "--project", "chat", "--name", "one", "--expires", "24h"])
    body = plane.state.changes()[0].body
    assert body is not None
    expires_at = datetime.fromisoformat(body["expires_at"])
    assert timedelta() <= expires_at - before - timedelta(days=1) < timedelta(minutes=1)


def test_an_unknown_project_says_how_to_create_it(plane: FakeControl) -> None:
    """A project that is in penstock.yaml alone is unknown, and the way to make one is told."""
    result = run(plane, "keys", "create", "--project", "playground", "--name", "one")
    assert result.exit_code == 1
    assert "There is no project 'playground'." in result.stderr
    assert "penstock projects create playground --org ORG" in result.stderr
    assert "penstock.yaml" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        "create --name x",
        "create --project chat",
        "create --project chat --name x --label broken",
        "create --project chat --name x --label =v",
        "create --project chat --name x --label a=1 --label a=2",
        "create --project chat --name x --expires yesterday",
        "create --project chat --name x --expires 2001-01-01",
        "create --project chat --name x --role king",
        "create --project chat --name x --scope everything",
        "create --project chat --name x --rotate-every often",
        "rotate ci --grace 60",
        "rotate ci --grace -1s",
        "update ci",
        "update ci --alias a --all-aliases",
        "update ci --cidr ::/0 --all-cidrs",
        "update ci --rotate-every never --rotate-grace 1h",
        "list --limit 0",
    ],
)
@pytest.mark.usefixtures("key")
def test_wrong_usage_is_exit_code_2(plane: FakeControl, arguments: str) -> None:
    """An option that cannot be meant is exit code 2 and changes nothing."""
    result = run(plane, "keys", *arguments.split())
    assert result.exit_code == 2
    assert result.stderr
    assert plane.state.changes() == []


def test_rotate_prints_the_new_secret(plane: FakeControl, key: dict[str, Any]) -> None:
    """`keys rotate ID --grace 60s --json` prints the new secret of the same id."""
    (row,) = run_json(plane, "keys", "rotate", key["id"], "--grace", "60s")
    assert row["id"] == key["id"]
    assert row["secret"] == SECRET.format(key["id"])
    assert plane.state.changes()[0].body == {"grace_s": 60}


@pytest.mark.usefixtures("key")
def test_rotate_says_how_long_the_old_one_works(plane: FakeControl) -> None:
    """People see until when the old secret works, or that it works no more."""
    result = run(plane, "keys", "rotate", "ci")
    assert plane.state.changes()[0].body == {"grace_s": 86_400}
    assert "works until 2026-01-01 00:01:00 UTC" in result.stdout
    assert "never again" in result.stdout
    assert "stopped working" in run(plane, "keys", "rotate", "ci", "--grace", "0s").stdout


def test_revoke(plane: FakeControl, key: dict[str, Any]) -> None:
    """`keys revoke ID --yes` ends a key; without a yes and a terminal it changes nothing."""
    result = run(plane, "keys", "revoke", key["id"])
    assert result.exit_code == 2
    assert "--yes" in result.stderr
    assert plane.state.changes() == []

    result = run(plane, "keys", "revoke", key["id"], "--yes", "--reason", "leaked")
    assert result.exit_code == 0
    assert "Revoked key ci" in result.stdout
    assert key["revoked_at"] is not None
    assert plane.state.changes()[0].body == {"reason": "leaked"}


def test_a_leaked_key_may_be_named_by_itself(plane: FakeControl, key: dict[str, Any]) -> None:
    """A whole key stands for its id, and its secret part is sent and shown nowhere."""
    leaked = SECRET.format(key["id"])
    result = run(plane, "keys", "revoke", leaked, "--yes")
    assert result.exit_code == 0
    assert key["revoked_at"] is not None
    unknown = SECRET.format("x" * 12)
    answer = run(plane, "keys", "show", unknown)
    assert answer.exit_code == 1
    assert "s" * 38 not in result.output + answer.output + repr(plane.state.asked)


def test_names_of_keys(plane: FakeControl, key: dict[str, Any]) -> None:
    """A name that two projects use is ambiguous until --project is given."""
    other = plane.state.add(
        "projects", name="search", organization_id=plane.state.rows["organizations"][0]["id"]
    )
    second = plane.state.add(
        "keys", name="ci", organization_id=key["organization_id"], project_id=other["id"]
    )
    result = run(plane, "keys", "show", "ci")
    assert result.exit_code == 2
    assert f"{key['id']} in chat" in result.stderr
    assert f"{second['id']} in search" in result.stderr
    assert run_json(plane, "keys", "show", "ci", "--project", "search") == [second]

    key["revoked_at"] = "2026-01-01T00:00:00Z"
    assert run_json(plane, "keys", "show", "ci") == [second]


def test_a_name_may_look_like_an_id(plane: FakeControl, key: dict[str, Any]) -> None:
    """A name of twelve letters is found when no key has it as its id."""
    key["name"] = "productionci"
    assert run_json(plane, "keys", "show", "productionci") == [key]


def test_list_and_show(plane: FakeControl, key: dict[str, Any]) -> None:
    """Keys are listed with their state and project, and shown with what they may do."""
    key["expires_at"] = "2026-01-01T00:00:00Z"
    result = run(plane, "keys", "list", "--project", "chat")
    assert "expired" in result.stdout
    assert "chat" in result.stdout
    assert run_json(plane, "keys", "list", "--org", "acme", "--name", "ci") == [key]

    key.update(expires_at=None, is_disabled=True, labels={"stage": "test"})
    shown = run(plane, "keys", "show", "ci").stdout
    assert "disabled by operator" not in shown
    for word in ("disabled", "inference, models:read", "stage=test", "by hand", "acme"):
        assert word in shown


def test_label_gives_and_takes(plane: FakeControl, key: dict[str, Any]) -> None:
    """The others stay, and who changed them meanwhile is not undone."""
    (row,) = run_json(plane, "keys", "label", "ci", "team=search", "note=a=b")
    assert row["labels"] == key["labels"] | {"team": "search", "note": "a=b"}
    (row,) = run_json(plane, "keys", "label", "ci", "team=ads", "--remove", "note")
    assert row["labels"] == key["labels"] | {"team": "ads"}
    assert [asked.headers["if-match"] for asked in plane.state.changes()] == ['"1"', '"2"']
    for wrong in ((), ("team",), ("=x",), ("a=1", "a=2")):
        assert run(plane, "keys", "label", "ci", *wrong).exit_code == 2


def test_update_changes_what_is_named(plane: FakeControl, key: dict[str, Any]) -> None:
    """Only members that were named are sent; lists are replaced and may be opened again."""
    changes = ("--alias", "small", "--expires", "2100-01-01", "--name", "ci2")
    run_json(plane, "keys", "update", "ci", *changes)
    run_json(plane, *f"keys update {key['id']} --all-aliases --expires never".split())
    bodies = [asked.body for asked in plane.state.changes()]
    assert bodies == [
        {
            "name": "ci2",
            "allowed_aliases": ["small"],
            "expires_at": "2100-01-01T00:00:00.000000Z",
        },
        {"allowed_aliases": None, "expires_at": None},
    ]
    assert not any("if-match" in asked.headers for asked in plane.state.changes())


def test_update_merges_labels(plane: FakeControl, key: dict[str, Any]) -> None:
    """Labels that are not named stay, under the condition that nobody changed them meanwhile."""
    key["labels"] = {"stage": "test", "old": "1", "other": "x"}
    arguments = "keys update ci --label stage=live --label new=2 --remove-label old"
    (row,) = run_json(plane, *arguments.split())
    assert row["labels"] == {"stage": "live", "new": "2", "other": "x"}
    assert plane.state.changes()[0].headers["if-match"] == '"1"'


def test_disable_and_enable(plane: FakeControl, key: dict[str, Any]) -> None:
    """A key is refused and let in again without a question, and shows who disabled it."""
    assert run(plane, "keys", "disable", "ci").exit_code == 0
    assert key["is_disabled"] is True
    assert "disabled by operator" in run(plane, "keys", "show", "ci").stdout
    assert run(plane, "keys", "enable", "ci").exit_code == 0
    assert key["is_disabled"] is False


def test_secrets_are_listed_and_revoked(plane: FakeControl, key: dict[str, Any]) -> None:
    """Secrets are known by their ids; ending one needs a yes."""
    (secret,) = run_json(plane, "keys", "secrets", "ci")
    assert secret["state"] == "active"
    assert secret["id"] in run(plane, "keys", "secrets", "ci").stdout

    assert run(plane, "keys", "revoke-secret", "ci", secret["id"]).exit_code == 2
    run_json(plane, "keys", "revoke-secret", "ci", secret["id"], "--yes")
    (change,) = plane.state.changes()
    assert change.path == f"/api/v1/keys/{key['id']}/secrets/{secret['id']}"


def test_a_secret_id_cannot_leave_its_place(plane: FakeControl, key: dict[str, Any]) -> None:
    """A secret id with slashes is one step of the path and no way elsewhere."""
    run(plane, "keys", "revoke-secret", "ci", "../../x", "--yes")
    (change,) = plane.state.changes()
    assert change.path == f"/api/v1/keys/{key['id']}/secrets/..%2F..%2Fx"


def test_parameters_at_fault_are_named(plane: FakeControl) -> None:
    """What control says about single parameters is in the message."""
    faults = [{"parameter": "name", "detail": "too long"}]
    plane.state.refusals = [
        problem(400, "err:control:request:invalid", "Wrong parameters: name.", errors=faults)
    ]
    error = json.loads(run(plane, "keys", "list", "--json").stderr)["error"]
    assert error["code"] == "err:control:request:invalid"
    assert "name: too long" in error["message"]


def test_a_role_that_may_not_is_told(plane: FakeControl) -> None:
    """A 403 about the role shows control's sentence, not that the token is wrong."""
    denied = problem(403, "err:control:access:operation_denied", "Your role does not allow this.")
    plane.state.refusals = [denied]
    result = run(plane, "keys", "list")
    assert result.exit_code == 1
    assert "Your role does not allow this." in result.stderr
    assert "PENSTOCK_TOKEN" not in result.stderr


def test_a_code_of_a_later_version_is_told(plane: FakeControl) -> None:
    """A code that this version does not know is shown with general advice."""
    plane.state.refusals = [problem(409, "err:control:future:thing", "Not on a Sunday.")]
    result = run(plane, "keys", "list")
    assert result.exit_code == 1
    assert "Not on a Sunday. (err:control:future:thing)" in result.stderr
    assert "What to do: " in result.stderr
