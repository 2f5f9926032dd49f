"""The commands of the catalog, from upstreams to grants, against a control plane in memory."""

from typing import Any

import pytest
from tests.fakes.control_api import FakeControl, problem, run, run_json

NAMED = ("upstreams", "deployments", "routes", "aliases")


@pytest.fixture
def catalog(plane: FakeControl) -> dict[str, dict[str, Any]]:
    """One object of each kind, from an upstream to a grant for the organization `acme`."""
    add = plane.state.add
    upstream = add("upstreams", name="gpu-pool", endpoints=["http://10.0.0.5:8000"])
    deployment = add("deployments", name="llama-gpu", upstream_id=upstream["id"], model="llama")
    choices = [{"deployment_id": deployment["id"], "weight": 3}]
    route = add("routes", name="llama", choices=choices)
    alias = add("aliases", name="chat-large", route_id=route["id"])
    organization = add("organizations", name="acme")
    project = add("projects", name="chat", organization_id=organization["id"])
    grant = add("grants", alias_id=alias["id"], organization_id=organization["id"])
    credential = add("credentials", name="vllm", provider="vllm")
    return {
        "upstreams": upstream,
        "deployments": deployment,
        "routes": route,
        "aliases": alias,
        "grants": grant,
        "organizations": organization,
        "projects": project,
        "credentials": credential,
    }


def _bodies(plane: FakeControl) -> list[Any]:
    return [asked.body for asked in plane.state.changes()]


def test_an_upstream_is_told_in_words_of_its_own(
    plane: FakeControl, catalog: dict[str, dict[str, Any]]
) -> None:
    """Each option of a new upstream becomes the member that the API has for it."""
    (row,) = run_json(
        plane,
        *(
            "upstreams",
            "create",
            "eu",
            "--endpoint",
            "http://a:8000",
            "--endpoint",
            "http://b:8000",
        ),
        *("--provider", "vllm", "--region", "eu-de", "--data-class", "eu_only"),
        *("--credential", "vllm", "--header", "x-trace-*", "--max-connections", "10"),
        *("--timeout-ms-connect", "1", "--timeout-ms-first-byte", "2", "--timeout-ms-idle", "3"),
        *("--timeout-ms-total", "4", "--tls-ca-file", "/etc/ca.pem"),
        *("--kv-events", "5557/5558"),
    )
    assert row["id"] == plane.state.rows["upstreams"][-1]["id"]
    assert _bodies(plane) == [
        {
            "name": "eu",
            "endpoints": ["http://a:8000", "http://b:8000"],
            "discover": None,
            "provider": "vllm",
            "region": "eu-de",
            "data_class": "eu_only",
            "credential_id": catalog["credentials"]["id"],
            "credential_reference": None,
            "forward_headers": ["x-trace-*"],
            "max_connections": 10,
            "timeouts": {"connect_ms": 1, "first_byte_ms": 2, "idle_ms": 3, "total_ms": 4},
            "tls_ca_file": "/etc/ca.pem",
            "kv_events": "5557/5558",
        }
    ]


@pytest.mark.usefixtures("catalog")
def test_endpoints_are_listed_or_found(plane: FakeControl) -> None:
    """`--discover` and `--endpoint` take each other away; a new upstream has one."""
    source = "dns://vllm.models.svc:8000"
    run_json(plane, "upstreams", "create", "found", "--discover", source)
    run_json(plane, "upstreams", "update", "found", "--endpoint", "http://a:8000")
    assert [(body["discover"], body["endpoints"]) for body in _bodies(plane)] == [
        (source, []),
        (None, ["http://a:8000"]),
    ]
    run_json(plane, "upstreams", "update", "found", "--discover", source)
    assert source in run(plane, "upstreams", "show", "found").output
    both = ("--endpoint", "http://a:8000", "--discover", source)
    assert run(plane, "upstreams", "create", "both", *both).exit_code == 2
    assert run(plane, "upstreams", "create", "neither").exit_code == 2


@pytest.mark.parametrize("reference", ["env:VLLM_KEY", "file:/run/secrets/vllm"])
def test_a_credential_may_stay_on_the_nodes(plane: FakeControl, reference: str) -> None:
    """`--credential env:NAME` and `file:PATH` are references, and are looked up nowhere."""
    arguments = ("--endpoint", "http://a:8000", "--credential", reference)
    run_json(plane, "upstreams", "create", "eu", *arguments)
    assert _bodies(plane)[0]["credential_reference"] == reference
    assert _bodies(plane)[0]["credential_id"] is None
    assert len(plane.state.asked) == 1


def test_an_organizations_credential_is_no_upstreams(
    plane: FakeControl, catalog: dict[str, dict[str, Any]]
) -> None:
    """`--credential` means the platform's, even where an organization has one of the same name."""
    owner = catalog["organizations"]["id"]
    plane.state.add("credentials", name="vllm", provider="vllm", organization_id=owner)
    plane.state.add("credentials", name="own", provider="vllm", organization_id=owner)
    run_json(plane, "upstreams", "update", "gpu-pool", "--credential", "vllm")
    assert _bodies(plane)[0]["credential_id"] == catalog["credentials"]["id"]
    assert run(plane, "upstreams", "update", "gpu-pool", "--credential", "own").exit_code == 1


@pytest.mark.usefixtures("catalog")
def test_an_update_of_an_upstream_takes_away(plane: FakeControl) -> None:
    """`none` empties what may be empty, and nothing else is sent."""
    options = ("region", "data-class", "credential", "header", "tls-ca-file", "kv-events")
    arguments = [part for option in options for part in (f"--{option}", "none")]
    run_json(plane, "upstreams", "update", "gpu-pool", *arguments)
    assert _bodies(plane) == [
        {
            "region": None,
            "data_class": None,
            "credential_id": None,
            "credential_reference": None,
            "forward_headers": [],
            "tls_ca_file": None,
            "kv_events": None,
        }
    ]


def test_an_update_of_an_upstream_keeps_other_timeouts(
    plane: FakeControl, catalog: dict[str, dict[str, Any]]
) -> None:
    """Timeouts that are not named stay, on condition that nobody changed them meanwhile."""
    catalog["upstreams"]["timeouts"] = {"connect_ms": 1, "idle_ms": 3}
    run_json(plane, "upstreams", "update", "gpu-pool", "--timeout-ms-idle", "9")
    assert _bodies(plane) == [{"timeouts": {"connect_ms": 1, "idle_ms": 9}}]
    assert plane.state.changes()[0].headers["if-match"] == '"1"'


def test_a_deployment_names_others_by_name(
    plane: FakeControl, catalog: dict[str, dict[str, Any]]
) -> None:
    """Upstream and credential of a deployment are given by name and sent as ids."""
    run_json(
        plane,
        *("deployments", "create", "new", "--upstream", "gpu-pool", "--model", "m/x"),
        *("--credential", "vllm", "--max-output-tokens", "99", "--continuous-usage"),
    )
    run_json(plane, *["deployments", "update", "new", "--credential", "none", "--final-usage"])
    assert _bodies(plane) == [
        {
            "name": "new",
            "upstream_id": catalog["upstreams"]["id"],
            "model": "m/x",
            "credential_id": catalog["credentials"]["id"],
            "max_output_tokens": 99,
            "continuous_usage": True,
        },
        {"credential_id": None, "continuous_usage": False},
    ]


def test_choices_have_weights(plane: FakeControl, catalog: dict[str, dict[str, Any]]) -> None:
    """A choice is a deployment with its weight, 1 without one; an update replaces them all."""
    other = plane.state.add("deployments", name="a:b/c", upstream_id="", model="m")
    arguments = "--choice llama-gpu --choice a:b/c=0 --fallback llama"
    run_json(plane, "routes", "create", "new", *arguments.split())
    run_json(plane, *f"routes update new --choice {other['id']}=1000 --fallback none".split())
    ours = catalog["deployments"]["id"]
    assert _bodies(plane) == [
        {
            "name": "new",
            "choices": [
                {"deployment_id": ours, "weight": 1},
                {"deployment_id": other["id"], "weight": 0},
            ],
            "fallback_id": catalog["routes"]["id"],
        },
        {"choices": [{"deployment_id": other["id"], "weight": 1000}], "fallback_id": None},
    ]


def test_an_alias_is_closed_unless_it_is_opened(
    plane: FakeControl, catalog: dict[str, dict[str, Any]]
) -> None:
    """A new alias is for those with a grant; --open and --granted say who may use it."""
    route = catalog["routes"]["id"]
    run_json(plane, "aliases", "create", "one", "--route", "llama")
    run_json(plane, "aliases", "create", "two", "--route", route, "--open")
    run_json(plane, "aliases", "update", "two", "--granted")
    assert _bodies(plane) == [
        {"name": "one", "route_id": route, "is_open": False},
        {"name": "two", "route_id": route, "is_open": True},
        {"is_open": False},
    ]


def test_a_grant_is_for_an_organization_or_a_project(
    plane: FakeControl, catalog: dict[str, dict[str, Any]]
) -> None:
    """`grants create` names the alias and the place, and a project brings its organization."""
    alias, owner = catalog["aliases"]["id"], catalog["organizations"]["id"]
    run_json(plane, "grants", "create", "--alias", "chat-large", "--org", "acme")
    run_json(plane, "grants", "create", "--alias", alias, "--project", "chat")
    assert _bodies(plane) == [
        {"alias_id": alias, "organization_id": owner},
        {
            "alias_id": alias,
            "organization_id": owner,
            "project_id": catalog["projects"]["id"],
        },
    ]
    assert run(plane, "grants", "create", "--alias", alias).exit_code == 2


def test_a_grant_is_found_by_what_it_grants(
    plane: FakeControl, catalog: dict[str, dict[str, Any]]
) -> None:
    """Without its id, a grant is the one for exactly this alias and place, no wider or narrower."""
    narrow = plane.state.add(
        "grants",
        alias_id=catalog["aliases"]["id"],
        organization_id=catalog["organizations"]["id"],
        project_id=catalog["projects"]["id"],
    )
    assert run_json(plane, *["grants", "show", "--alias", "chat-large", "--org", "acme"]) == [
        catalog["grants"]
    ]
    assert run_json(plane, *["grants", "show", "--alias", "chat-large", "--project", "chat"]) == [
        narrow
    ]
    assert run_json(plane, "grants", "show", narrow["id"]) == [narrow]
    shown = run(plane, "grants", "list", "--org", "acme").stdout
    assert "chat-large" in shown
    assert "all" in shown

    run_json(plane, *["grants", "delete", "--alias", "chat-large", "--org", "acme", "--yes"])
    assert plane.state.rows["grants"] == [narrow]
    again = run(plane, *["grants", "delete", "--alias", "chat-large", "--org", "acme", "--yes"])
    assert again.exit_code == 1
    assert "There is no grant of alias 'chat-large' in organization acme." in again.stderr
    assert run(plane, "grants", "delete", "--org", "acme", "--yes").exit_code == 2
    assert run(plane, "grants", "delete", "grt_of/nobody", "--yes").exit_code == 1


def test_lists_have_filters(plane: FakeControl, catalog: dict[str, dict[str, Any]]) -> None:
    """What a list is narrowed by is asked of control, with ids for names."""
    upstream, route = catalog["upstreams"]["id"], catalog["routes"]["id"]
    alias, owner = catalog["aliases"]["id"], catalog["organizations"]["id"]
    wanted = {
        "upstreams list --provider vllm --region eu-de --data-class eu_only": {
            "provider": "vllm",
            "region": "eu-de",
            "data_class": "eu_only",
        },
        "deployments list --upstream gpu-pool --model llama": {
            "upstream_id": upstream,
            "model": "llama",
        },
        "routes list": {},
        "aliases list --route llama": {"route_id": route},
        "grants list --alias chat-large --org acme": {"alias_id": alias, "organization_id": owner},
        "credentials list --org acme --provider vllm": {
            "organization_id": owner,
            "provider": "vllm",
        },
    }
    for line, filters in wanted.items():
        run_json(plane, *line.split())
        assert plane.state.asked[-1].query == {**filters, "limit": "1000"}, line


@pytest.mark.usefixtures("catalog")
def test_people_see_names_for_ids(plane: FakeControl) -> None:
    """Tables and single objects show what ids stand for."""
    plane.state.rows["upstreams"][0]["credential_id"] = plane.state.rows["credentials"][0]["id"]
    assert "vllm" in run(plane, "upstreams", "show", "gpu-pool").stdout
    assert "gpu-pool" in run(plane, "deployments", "list").stdout
    assert "llama-gpu=3" in run(plane, "routes", "list").stdout
    assert "Route          llama" in run(plane, "aliases", "show", "chat-large").stdout
    for kind in NAMED:
        assert "2026-01-01 00:00:00" in run(plane, kind, "list").stdout


@pytest.mark.parametrize("kind", NAMED)
@pytest.mark.parametrize("how", ["name", "id"])
def test_names_and_ids_are_taken(
    plane: FakeControl, catalog: dict[str, dict[str, Any]], kind: str, how: str
) -> None:
    """An object is shown by its name and by its id, and programs get it as control has it."""
    assert run_json(plane, kind, "show", catalog[kind][how]) == [catalog[kind]]


@pytest.mark.parametrize("kind", [*NAMED, "credentials"])
def test_what_is_not_there_is_told(plane: FakeControl, kind: str) -> None:
    """An unknown name is exit code 1, with the commands that list and create such objects."""
    for command in ("show", "delete"):
        result = run(plane, kind, command, "nobody")
        assert result.exit_code == 1
        assert "There is no" in result.stderr
        assert f"penstock {kind} list" in result.stderr
        assert f"penstock {kind} create" in result.stderr
    assert f"penstock {kind} create" in run(plane, kind, "list").stdout
    assert run_json(plane, kind, "list") == []


@pytest.mark.parametrize("kind", [*NAMED, "grants", "credentials"])
def test_deleting_needs_a_yes(
    plane: FakeControl, catalog: dict[str, dict[str, Any]], kind: str
) -> None:
    """Without a yes nothing is deleted; with one the object is gone, and its id is printed."""
    identifier = catalog[kind]["id"]
    result = run(plane, kind, "delete", identifier)
    assert result.exit_code == 2
    assert identifier in result.stderr
    assert plane.state.changes() == []
    (answer,) = run_json(plane, kind, "delete", identifier, "--yes")
    assert (answer["id"], answer["is_deleted"]) == (identifier, True)
    assert plane.state.rows[kind] == []


@pytest.mark.usefixtures("catalog")
def test_a_refusal_is_told(plane: FakeControl) -> None:
    """What is in use is not deleted, and control's sentence says what uses it."""
    detail = "Deployment llama-gpu uses it."
    plane.state.refused_changes = [problem(409, "err:control:catalog:in_use", detail)]
    result = run(plane, "upstreams", "delete", "gpu-pool", "--yes")
    assert result.exit_code == 1
    assert detail in result.stderr


@pytest.mark.parametrize("kind", ["upstreams", "deployments"])
def test_disabling_can_be_undone(
    plane: FakeControl, catalog: dict[str, dict[str, Any]], kind: str
) -> None:
    """An upstream or a deployment is switched off and on again without a question."""
    name = catalog[kind]["name"]
    assert f"Disabled {kind[:-1]} {name} (" in run(plane, kind, "disable", name).stdout
    assert catalog[kind]["is_disabled"] is True
    assert run(plane, kind, "enable", name).exit_code == 0
    assert catalog[kind]["is_disabled"] is False


@pytest.mark.parametrize(
    "arguments",
    [
        "upstreams create eu",
        "upstreams create eu --endpoint http://a --timeout-ms-idle 0",
        "upstreams create eu --endpoint http://a --max-connections few",
        "upstreams update gpu-pool",
        "deployments create new --model m",
        "deployments update llama-gpu",
        "routes create new",
        "routes create new --choice llama-gpu=",
        "routes create new --choice llama-gpu=-1",
        "routes create new --choice llama-gpu=1001",
        "routes create new --choice llama-gpu=1.5",
        "routes update llama",
        "aliases create new",
        "aliases update chat-large",
        "grants create --org acme",
        "grants delete --yes",
        "credentials update vllm",
    ],
)
@pytest.mark.usefixtures("catalog")
def test_wrong_usage_is_exit_code_2(plane: FakeControl, arguments: str) -> None:
    """An option that cannot be meant, or is missing, is exit code 2 and changes nothing."""
    result = run(plane, *arguments.split())
    assert result.exit_code == 2, result.output
    assert result.stderr
    assert plane.state.changes() == []


def test_providers_are_listed(plane: FakeControl) -> None:
    """`providers list` says what can serve an upstream, in words and as JSON."""
    row = plane.state.add("providers", name="vllm", description="vLLM's own server.")
    assert "vLLM's own server." in run(plane, "providers", "list").stdout
    assert run_json(plane, "providers", "list") == [row]


def test_a_deployment_may_have_a_tokenizer(
    plane: FakeControl, catalog: dict[str, dict[str, Any]]
) -> None:
    """It is a folder on the nodes, and can be taken away."""
    name = catalog["deployments"]["name"]
    run_json(plane, "deployments", "update", name, "--tokenizer", "/models/llama")
    run_json(plane, "deployments", "update", name, "--tokenizer", "none")
    assert [body["tokenizer"] for body in _bodies(plane)] == ["/models/llama", None]
