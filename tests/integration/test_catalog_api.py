"""The catalog over HTTP: its objects live, are refused with a reason, and hide from tenants."""

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.admin_rig import AdminRig, expect_problem, run_admin_rig

from penstock.catalog.rules import PROVIDERS

REQUEST_INVALID = "err:control:request:invalid"
INVALID = "err:control:catalog:invalid"
UNKNOWN = "err:control:storage:object_unknown"
IN_USE = "err:control:catalog:in_use"
DENIED = "err:control:access:operation_denied"


@pytest.fixture
async def rig(sqlite_template: Path, tmp_path: Path) -> AsyncIterator[AdminRig]:
    """A control plane without any objects."""
    async with run_admin_rig(sqlite_template, tmp_path / "data") as rig:
        yield rig


async def _create_path(rig: AdminRig, name: str) -> dict[str, dict[str, Any]]:
    """Create an alias with all that it leads to, all of one name; return them by kind."""
    upstream = await rig.create("/upstreams", name=name, endpoints=["http://127.0.0.1:8000"])
    deployment = await rig.create(
        "/deployments", name=name, upstream_id=upstream["id"], model="served"
    )
    choices = [{"deployment_id": deployment["id"]}]
    route = await rig.create("/routes", name=name, choices=choices)
    alias = await rig.create("/aliases", name=name, route_id=route["id"])
    return {"upstreams": upstream, "deployments": deployment, "routes": route, "aliases": alias}


async def _list_names(rig: AdminRig, path: str, token: str | None = None) -> list[str]:
    answer = await (rig.call("GET", path) if token is None else rig.call("GET", path, token=token))
    assert answer.status_code == 200, answer.text
    return sorted(item["name"] for item in answer.json()["data"])


async def test_providers_are_listed(rig: AdminRig) -> None:
    """The names that `provider` can have are listed with what each is, also for a tenant."""
    project = await rig.create_project("mine")
    token = await rig.create_token(project["id"], "developer")
    found = (await rig.call("GET", "/providers", token=token)).json()["data"]
    assert {item["name"]: item["description"] for item in found} == PROVIDERS


async def test_objects_have_their_defaults(rig: AdminRig) -> None:
    """What is left out when an object is created has the value that the document shows."""
    made = await _create_path(rig, "fast")
    times = {
        "created_at": "2025-06-15T15:06:40.000000Z",
        "updated_at": "2025-06-15T15:06:40.000000Z",
    }
    common = {"name": "fast", "version": 1} | times
    assert made["upstreams"] == common | {
        "id": made["upstreams"]["id"],
        "takes_priority": False,
        "kv_events": None,
        "provider": "openai_compatible",
        "endpoints": ["http://127.0.0.1:8000"],
        "discover": None,
        "region": None,
        "data_class": None,
        "credential_id": None,
        "credential_reference": None,
        "forward_headers": [],
        "timeouts": {},
        "max_connections": 16_384,
        "tls_ca_file": None,
        "is_disabled": False,
    }
    assert made["deployments"] == common | {
        "id": made["deployments"]["id"],
        "upstream_id": made["upstreams"]["id"],
        "model": "served",
        "credential_id": None,
        "continuous_usage": False,
        "max_output_tokens": 1_000_000,
        "adapter_of": None,
        "adapter_path": None,
        "tokenizer": None,
        "is_disabled": False,
    }
    assert made["routes"] == common | {
        "id": made["routes"]["id"],
        "choices": [{"deployment_id": made["deployments"]["id"], "weight": 1}],
        "fallback_id": None,
    }
    assert made["aliases"] == common | {
        "id": made["aliases"]["id"],
        "route_id": made["routes"]["id"],
        "is_open": False,
    }
    for kind, item in made.items():
        answer = await rig.call("GET", f"/{kind}/{item['id']}")
        assert (answer.json(), answer.headers["etag"]) == (item, '"1"')


async def test_objects_are_changed_and_deleted(rig: AdminRig) -> None:
    """Members that are sent change, null included; what is used by something else stays."""
    made = await _create_path(rig, "fast")
    other = await _create_path(rig, "slow")
    changes: dict[str, dict[str, Any]] = {
        "upstreams": {"region": "eu-de", "timeouts": {"idle_ms": 5}, "is_disabled": True},
        "deployments": {"model": "other", "upstream_id": other["upstreams"]["id"]},
        "routes": {"fallback_id": other["routes"]["id"]},
        "aliases": {"is_open": True, "route_id": other["routes"]["id"]},
    }
    for kind, body in changes.items():
        path = f"/{kind}/{made[kind]['id']}"
        changed = (await rig.call("PATCH", path, body)).json()
        assert changed == made[kind] | body | {"version": 2}
        assert (await rig.call("PATCH", path, body)).json() == changed
        answer = await rig.call("PATCH", path, body, if_match='"1"')
        expect_problem(answer, 412, "err:control:storage:version_conflict")
        expect_problem(await rig.call("PATCH", path, {"name": "x"}), 400, REQUEST_INVALID)
    upstream_path = f"/upstreams/{made['upstreams']['id']}"
    assert (await rig.call("PATCH", upstream_path, {"region": None})).json()["region"] is None
    for kind, user in (("upstreams", "deployment"), ("deployments", "route"), ("routes", "alias")):
        answer = await rig.call("DELETE", f"/{kind}/{other[kind]['id']}")
        expect_problem(answer, 409, IN_USE)
        assert f"{user} " in answer.json()["detail"]
    for kind in ("aliases", "routes", "deployments", "upstreams"):
        path = f"/{kind}/{made[kind]['id']}"
        assert (await rig.call("DELETE", path)).status_code == 204
        expect_problem(await rig.call("GET", path), 404, UNKNOWN)
        assert await _list_names(rig, f"/{kind}") == ["slow"]


BAD_UPSTREAMS: tuple[tuple[dict[str, Any], str], ...] = (
    ({"name": "Gpu"}, "`name`: is no name"),
    ({"name": "a" * 64}, "`name`: is no name"),
    ({"provider": "vlm"}, '`provider`: no provider is named "vlm"; did you mean "vllm"?'),
    ({"endpoints": []}, "`endpoints`: has 0 addresses; list some, or say"),
    ({"endpoints": ["http://a"] * 257}, "`endpoints`: has more than 256 addresses; list fewer"),
    ({"endpoints": ["http://a", "HTTP"]}, "`endpoints`: [1] has no scheme"),
    ({"endpoints": ["http://a", "http://A:80/"]}, "`endpoints`: has an address twice"),
    ({"endpoints": ["http://user:secret-xyz@a"]}, "`endpoints`: [0] holds a user name"),
    ({"discover": "dns://gpu:80"}, "`endpoints` and `discover` exclude each other"),
    ({"endpoints": [], "discover": "gpu:80"}, "`discover`: is no source of endpoints"),
    ({"endpoints": ["http://169.254.169.254"]}, "`endpoints`: [0] has an address that no model"),
    ({"region": "EU"}, "`region`: is no name"),
    ({"data_class": ""}, "`data_class`: is no name"),
    ({"credential_reference": "secret-xyz"}, "`credential_reference`: is no reference"),
    ({"credential_reference": "file:here"}, "`credential_reference`: is no absolute path"),
    ({"tls_ca_file": "ca.pem"}, "`tls_ca_file`: is no absolute path"),
    ({"forward_headers": ["authorization"]}, "`forward_headers`: [0] covers"),
    ({"timeouts": {"connect_ms": 0}}, "`timeouts`: has a number out of range"),
    ({"timeouts": {"first_byte_ms_per_1k_tokens": -1}}, "`timeouts`: has a number out of range"),
    ({"timeouts": {"total_ms": 5, "idle_ms": 6}}, "`timeouts`: has idle_ms longer than total"),
    ({"max_connections": 65_536}, "`max_connections`: has a number out of range"),
    (
        {"credential_reference": "env:A", "credential_id": "crd_none"},
        "`credential_id` and `credential_reference` exclude each other",
    ),
)


async def test_an_upstream_that_cannot_be_is_refused(
    rig: AdminRig, subtests: pytest.Subtests
) -> None:
    """A wrong member is told by its name with a remedy, and never repeated when it is secret."""
    right = {"name": "gpu", "endpoints": ["http://gpu"]}
    for body, detail in BAD_UPSTREAMS:
        with subtests.test(body=body, detail=detail):
            answer = await rig.call("POST", "/upstreams", right | body)
            expect_problem(answer, 400, INVALID)
            assert answer.json()["detail"].startswith(detail)
            assert "secret-xyz" not in answer.text


async def test_adapters_are_deployments(rig: AdminRig) -> None:
    """An adapter has a model beside it, and is loaded only by servers that can be told to."""
    made = await _create_path(rig, "fast")
    gpu = await rig.create("/upstreams", name="gpu", provider="vllm", endpoints=["http://gpu"])
    adapter = {"adapter_of": "served", "adapter_path": "/adapters/legal"}
    new = {"name": "legal", "upstream_id": gpu["id"], "model": "legal"}
    legal = await rig.create("/deployments", **new, **adapter)
    assert legal.items() >= adapter.items()
    path = f"/deployments/{legal['id']}"
    assert (await rig.call("PATCH", path, {"adapter_path": None})).json()["adapter_path"] is None
    wrong: tuple[dict[str, Any], ...] = (
        {"adapter_of": None, "adapter_path": "/adapters/legal"},
        {"adapter_of": "legal"},
        {"upstream_id": made["upstreams"]["id"], "adapter_path": "/adapters/legal"},
    )
    for changes in wrong:
        expect_problem(await rig.call("PATCH", path, changes), 400, INVALID)


async def test_routes_that_cannot_be_are_refused(rig: AdminRig) -> None:
    """A route has 1 to 64 choices of different deployments, and weights of 0 to 1,000."""
    made = await _create_path(rig, "fast")
    one = {"deployment_id": made["deployments"]["id"]}
    for choices in ([], [one, one], [one | {"weight": 1001}], [one | {"weight": -1}], [one] * 65):
        answer = await rig.call("POST", "/routes", {"name": "new", "choices": choices})
        expect_problem(answer, 400, INVALID)
    for choice in ({}, one | {"x": 1}, one | {"weight": "1"}, one | {"weight": None}):
        answer = await rig.call("POST", "/routes", {"name": "new", "choices": [choice]})
        expect_problem(answer, 400, REQUEST_INVALID)
    path = f"/routes/{made['routes']['id']}"
    answer = await rig.call("PATCH", path, {"fallback_id": made["routes"]["id"]})
    expect_problem(answer, 409, "err:control:catalog:fallback_cycle")
    assert answer.json()["detail"].endswith(": fast -> fast.")


@pytest.mark.parametrize("name", ["", "a b", "-a", "é", "a\n", "a" * 129, "a\u0000"])
async def test_names_are_ascii(rig: AdminRig, name: str) -> None:
    """A name that a caller could not send, or could send in two ways, is refused."""
    made = await _create_path(rig, "fast")
    body = {"name": name, "route_id": made["routes"]["id"]}
    answer = await rig.call("POST", "/aliases", body)
    assert answer.status_code == 400
    assert answer.json()["code"] in {INVALID, REQUEST_INVALID}
    assert await _list_names(rig, "/aliases") == ["fast"]


async def test_filters_narrow_listings(rig: AdminRig) -> None:
    """Each filter leaves what has exactly that value."""
    fast, slow = [await _create_path(rig, name) for name in ("fast", "slow")]
    await rig.call(
        "PATCH",
        f"/upstreams/{fast['upstreams']['id']}",
        {"region": "eu-de", "data_class": "eu_only", "provider": "vllm"},
    )
    for path in (
        "/upstreams?region=eu-de",
        "/upstreams?data_class=eu_only",
        "/upstreams?provider=vllm",
        f"/deployments?upstream_id={fast['upstreams']['id']}",
        f"/aliases?route_id={fast['routes']['id']}",
        *(f"/{kind}?name=fast" for kind in fast),
    ):
        assert await _list_names(rig, path) == ["fast"]
    assert await _list_names(rig, "/deployments?model=served") == ["fast", "slow"]
    first = (await rig.call("GET", "/aliases?limit=1")).json()
    second = (await rig.call("GET", f"/aliases?limit=1&cursor={first['next_cursor']}")).json()
    found = {item["id"] for item in first["data"] + second["data"]}
    assert found == {fast["aliases"]["id"], slow["aliases"]["id"]}
    expect_problem(await rig.call("GET", "/routes?upstream_id=x"), 400, REQUEST_INVALID)


async def test_tenants_see_what_they_may_use(rig: AdminRig) -> None:
    """An organization is shown aliases it may use, without their routes, and its own grants."""
    made = {name: await _create_path(rig, name) for name in ("open", "ours", "project", "theirs")}
    ids = {name: path["aliases"]["id"] for name, path in made.items()}
    await rig.call("PATCH", f"/aliases/{ids['open']}", {"is_open": True})
    mine, other = [await rig.create_project(name) for name in ("mine", "other")]
    second = await rig.create("/projects", organization_id=mine["organization_id"], name="second")
    organization = {"organization_id": mine["organization_id"]}
    await rig.create("/grants", alias_id=ids["ours"], **organization)
    of_project = await rig.create(
        "/grants", alias_id=ids["project"], project_id=mine["id"], **organization
    )
    foreign = await rig.create(
        "/grants", alias_id=ids["theirs"], organization_id=other["organization_id"]
    )
    owner = await rig.create_token(mine["id"], "org_owner")
    admin = await rig.create_token(second["id"], "project_admin")
    assert await _list_names(rig, "/aliases", owner) == ["open", "ours", "project"]
    assert await _list_names(rig, "/aliases", admin) == ["open", "ours"]
    shown = (await rig.call("GET", f"/aliases/{ids['ours']}", token=owner)).json()
    assert shown == made["ours"]["aliases"] | {"route_id": None}
    for token, name in ((owner, "theirs"), (admin, "project")):
        expect_problem(await rig.call("GET", f"/aliases/{ids[name]}", token=token), 404, UNKNOWN)
    grants = (await rig.call("GET", "/grants", token=owner)).json()["data"]
    assert {grant["alias_id"] for grant in grants} == {ids["ours"], ids["project"]}
    assert (await rig.call("GET", "/grants", token=admin)).json()["data"] == []
    for token, grant in ((owner, foreign), (admin, of_project)):
        expect_problem(await rig.call("GET", f"/grants/{grant['id']}", token=token), 404, UNKNOWN)
    assert (await rig.call("GET", f"/grants/{of_project['id']}", token=owner)).json() == of_project
    for kind in ("upstreams", "deployments", "routes"):
        expect_problem(await rig.call("GET", f"/{kind}", token=owner), 403, DENIED)
    body = {"alias_id": ids["theirs"], **organization}
    expect_problem(await rig.call("POST", "/grants", body, token=owner), 403, DENIED)
    assert (await rig.call("DELETE", f"/grants/{of_project['id']}")).status_code == 204
    assert await _list_names(rig, "/aliases", owner) == ["open", "ours"]


async def test_damaged_rows_are_listed_with_the_others(rig: AdminRig) -> None:
    """A row with nonsense in it is shown with those members empty, and can be mended or deleted."""
    made = await _create_path(rig, "broken")
    await _create_path(rig, "whole")
    connection = sqlite3.connect(rig.data / "usage.db")
    connection.executescript(
        """
        UPDATE upstreams SET endpoints = '{', timeouts = 'null', forward_headers = '[1]',
            max_connections = 'many', provider = 'nobody' WHERE name = 'broken';
        UPDATE deployments SET max_output_tokens = 'many', is_disabled = 7 WHERE name = 'broken';
        UPDATE route_choices SET weight = 'much' WHERE route_id = (
            SELECT id FROM routes WHERE name = 'broken');
        UPDATE aliases SET is_open = 'perhaps' WHERE name = 'broken';
        """
    )
    connection.close()
    for kind in made:
        assert await _list_names(rig, f"/{kind}") == ["broken", "whole"]
    path = f"/upstreams/{made['upstreams']['id']}"
    shown = (await rig.call("GET", path)).json()
    assert (shown["endpoints"], shown["timeouts"], shown["max_connections"]) == ([], {}, 0)
    answer = await rig.call("PATCH", path, {"region": "eu-de"})
    expect_problem(answer, 400, INVALID)
    mended = await rig.call(
        "PATCH",
        path,
        {
            "endpoints": ["http://a"],
            "timeouts": {},
            "forward_headers": [],
            "max_connections": 1,
            "provider": "vllm",
        },
    )
    assert mended.json()["endpoints"] == ["http://a"]
    for kind in reversed(made):
        answer = await rig.call("DELETE", f"/{kind}/{made[kind]['id']}")
        assert answer.status_code == 204, answer.text
