"""What nodes are told of the catalog."""

import dataclasses
from typing import Any

import pytest

from penstock.catalog.feed import (
    format_grant,
    parse_grant,
    tell_alias,
    tell_deployment,
    tell_route,
    tell_upstream,
)
from penstock.catalog.objects import Alias, Choice, Deployment, Route, Upstream
from penstock.contract import snapshot
from penstock.contract.snapshot_store import (
    alias_record,
    deployment_record,
    route_record,
    upstream_record,
)

STORED: dict[str, Any] = {"version": 1, "created_at_us": 1, "updated_at_us": 2}
UPSTREAM = Upstream(
    id="ups_1",
    name="gpu",
    provider="vllm",
    endpoints=["http://A:80/v/", "https://b:443-444"],
    region="eu-de",
    data_class="eu_only",
    credential_reference="env:TOKEN",
    forward_headers=["x-trace-*"],
    timeouts={"idle_ms": 5},
    max_connections=9,
    tls_ca_file="/ca.pem",
    takes_priority=True,
    kv_events="5557",
    **STORED,
)
DEPLOYMENT = Deployment(id="dep_1", name="d", upstream_id="ups_1", model="m", **STORED)
ROUTE = Route(
    id="rte_1",
    name="r",
    choices=[
        Choice(deployment_id="dep_1", weight=3),
        Choice(deployment_id="dep_gone"),
        Choice(deployment_id="dep_2", weight=0),
    ],
    fallback_id="rte_2",
    **STORED,
)
ALIAS = Alias(id="als_1", name="a", route_id="rte_1", **STORED)
NAMES = {"ups_1": "gpu", "dep_1": "d", "dep_2": "e", "rte_1": "r", "rte_2": "s"}


def test_records_name_objects_by_their_names() -> None:
    """Ids of the database become names, URLs endpoints, and credentials references."""
    assert tell_upstream(UPSTREAM, {}) == upstream_record(
        snapshot.Upstream(
            name="gpu",
            provider="vllm",
            endpoints=(
                snapshot.Endpoint("http", "a", 80, "/v"),
                snapshot.Endpoint("https", "b", 443),
                snapshot.Endpoint("https", "b", 444),
            ),
            credential="env:TOKEN",
            forward_headers=("x-trace-*",),
            timeouts=snapshot.Timeouts(idle_ms=5),
            max_connections=9,
            tls_ca_file="/ca.pem",
            takes_priority=True,
            kv_events="5557",
            region="eu-de",
            data_class="eu_only",
        )
    )
    assert tell_deployment(
        dataclasses.replace(DEPLOYMENT, credential_id="crd_1"), NAMES
    ) == deployment_record(snapshot.Deployment("d", "gpu", "m", credential="credential:crd_1"))
    assert tell_route(ROUTE, NAMES) == route_record(
        snapshot.Route("r", (snapshot.Choice("d", 3), snapshot.Choice("e", 0)), "s")
    )
    assert tell_alias(ALIAS, NAMES) == alias_record(snapshot.Alias("a", "r", is_open=False))


def test_an_adapter_is_told_with_its_model_and_where_it_is() -> None:
    """Nodes are told which model an adapter adapts, and where it is to be loaded from."""
    item = dataclasses.replace(
        DEPLOYMENT, adapter_of="base", adapter_path="/adapters/m", tokenizer="/models/base"
    )
    told = snapshot.Deployment(
        "d", "gpu", "m", adapter_of="base", adapter_path="/adapters/m", tokenizer="/models/base"
    )
    assert tell_deployment(item, NAMES) == deployment_record(told)
    assert (told.base_model, snapshot.Deployment("d", "gpu", "m").base_model) == ("base", "m")


def test_a_credential_kept_here_is_named_by_its_id() -> None:
    """An upstream's credential is told as a reference that only the agent can open."""
    item = dataclasses.replace(UPSTREAM, credential_reference=None, credential_id="crd_1")
    record = tell_upstream(item, {})
    assert record is not None
    assert b"credential:crd_1" in record[1]


def test_what_is_out_of_use_has_no_record() -> None:
    """Disabled objects, damaged ones, and those that lead nowhere are not told of."""
    assert tell_upstream(dataclasses.replace(UPSTREAM, is_disabled=True), {}) is None
    assert tell_upstream(dataclasses.replace(UPSTREAM, endpoints=[]), {}) is None
    assert tell_deployment(dataclasses.replace(DEPLOYMENT, is_disabled=True), NAMES) is None
    assert tell_deployment(dataclasses.replace(DEPLOYMENT, model=""), NAMES) is None
    assert tell_deployment(DEPLOYMENT, {}) is None
    assert tell_route(dataclasses.replace(ROUTE, choices=[]), NAMES) is None
    assert tell_alias(ALIAS, {}) is None


@pytest.mark.parametrize("project_id", [None, "prj_1"])
def test_names_of_grants_go_there_and_back(project_id: str | None) -> None:
    """A grant's name in the change feed says whom it lets use what."""
    assert parse_grant(format_grant("a/b", "org_1", project_id)) == ("a/b", "org_1", project_id)
