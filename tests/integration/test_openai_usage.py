"""Usage and costs in OpenAI's form: its official client reads them, and whose they are."""

import json
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI, BadRequestError
from tests.fakes.admin_rig import AdminRig, expect_problem, run_admin_api
from tests.fakes.databases import sqlite_database
from tests.fakes.rated_usage import RatedUsage
from tests.unit.metering.usage_events import STARTED_AT_NS, make_event

from penstock.metering import openai_rules

READER = ["usage:read", "costs:read"]
START = STARTED_AT_NS // 10**9
DAY = START // 86_400 * 86_400
PATHS = ("/v1/organization/usage/completions", "/v1/organization/usage/embeddings")
COSTS = "/v1/organization/costs"
UNKNOWN = "err:control:storage:object_unknown"


@pytest.fixture
async def usage(sqlite_template: Path, tmp_path: Path) -> AsyncIterator[RatedUsage]:
    """A database with a price."""
    async with sqlite_database(sqlite_template, tmp_path) as database:
        usage = RatedUsage(database)
        await usage.set_price("fast")
        yield usage


@pytest.fixture
async def rig(usage: RatedUsage, tmp_path: Path) -> AsyncIterator[AdminRig]:
    """The admin API on it."""
    async with run_admin_api(usage.database, tmp_path / "data") as rig:
        yield rig


async def _create(rig: AdminRig, usage: RatedUsage, number: int, **members: Any) -> dict[str, Any]:
    """Create a project with a key, a chat of it and an embedding an hour later."""
    project = await rig.create_project(f"project {number}")
    key = await rig.create("/keys", project_id=project["id"], name=f"key {number}")
    ids = {
        "organization": project["organization_id"],
        "project": project["id"],
        "key_id": key["id"],
    }
    later = STARTED_AT_NS + 3_600 * 10**9
    embedding = {"operation": "embeddings", "input_tokens": 500, "output_tokens": 0}
    embedding |= {"reasoning_output_tokens": 0, "cached_input_tokens": 0, "started_at_ns": later}
    chat = make_event(2 * number, **ids, cached_input_tokens=5, **members)
    await usage.add([chat, make_event(2 * number + 1, **ids, model="embed", **embedding)])
    return ids


def _client(rig: AdminRig, token: str) -> AsyncOpenAI:
    http_client: Any = rig.client
    return AsyncOpenAI(
        base_url=f"{rig.client.base_url}/v1",
        admin_api_key=token,
        api_key="not-used",
        max_retries=0,
        http_client=http_client,
    )


async def test_the_official_client_reads_usage(rig: AdminRig, usage: RatedUsage) -> None:
    """OpenAI's client finds completions without embeddings, and embeddings, in its own types."""
    mine, _ = await _create(rig, usage, 1), await _create(rig, usage, 2)
    token = await rig.create_token(mine["project"], "billing_admin", READER)
    read = _client(rig, token).admin.organization.usage
    page = await read.completions(
        start_time=DAY,
        end_time=START + 1,
        bucket_width="1h",
        limit=24,
        group_by=["project_id", "api_key_id", "model"],
        project_ids=[mine["project"]],
        api_key_ids=[mine["key_id"]],
        models=["fast", "embed"],
    )
    assert len(page.data) == (START - DAY) // 3_600 + 1
    assert [len(bucket.results) for bucket in page.data] == [0] * (len(page.data) - 1) + [1]
    assert page.data[-1].start_time == START // 3_600 * 3_600
    found: Any = page.data[-1].results[0]
    assert found.object == "organization.usage.completions.result"
    assert (found.project_id, found.api_key_id) == (mine["project"], mine["key_id"])
    assert (found.model, found.num_model_requests) == ("fast", 1)
    assert (found.input_tokens, found.input_cached_tokens, found.output_tokens) == (12, 5, 7)
    days = await read.embeddings(start_time=DAY, end_time=DAY + 2 * 86_400)
    one: Any = days.data[0].results[0]
    assert one.object == "organization.usage.embeddings.result"
    assert (one.input_tokens, one.num_model_requests, one.model) == (500, 1, None)
    whole: Any = (await read.completions(start_time=DAY, end_time=DAY + 86_400)).data[0].results
    assert [(one.input_tokens, one.output_tokens) for one in whole] == [(12, 7)]


async def test_the_official_client_reads_costs(rig: AdminRig, usage: RatedUsage) -> None:
    """OpenAI's client finds what its organization is charged, and all digits are there beside."""
    mine, _ = await _create(rig, usage, 1), await _create(rig, usage, 2)
    token = await rig.create_token(mine["project"], "billing_admin", READER)
    read = _client(rig, token).admin.organization.usage
    page = await read.costs(start_time=DAY, end_time=DAY + 86_400, group_by=["line_item"])
    (found,) = page.data[0].results
    one: Any = found
    assert (one.object, one.line_item) == ("organization.costs.result", "fast")
    assert (one.amount.currency, one.amount.value) == ("eur", 0.0000235)
    answer = await rig.call("GET", f"{COSTS}?start_time={DAY}&end_time={DAY + 1}", token=token)
    exact = json.loads(answer.content, parse_float=Decimal)
    amount = exact["data"][0]["results"][0]["amount"]
    assert amount == {"value": Decimal("0.0000235"), "currency": "eur", "decimal": "0.0000235"}


async def test_pages_have_every_result_once(
    rig: AdminRig, usage: RatedUsage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page has so many buckets, fewer where they have many results, and all are seen once."""
    mine = await _create(rig, usage, 1)
    days = 9
    await usage.add(
        [
            make_event(
                100 + 10 * day + number,
                **mine | {"model": f"model-{number}"},
                started_at_ns=STARTED_AT_NS - day * 86_400 * 10**9,
            )
            for day in range(days)
            for number in range(3)
        ]
    )
    first = DAY - (days - 1) * 86_400
    span = f"start_time={first}&end_time={DAY + 86_400}&limit=4&group_by=model"
    for most in (10_000, 2):
        monkeypatch.setattr(openai_rules, "MAX_PAGE_RESULTS", most)
        for path, count in ((PATHS[0], 3 * days + 1), (PATHS[1], 1), (COSTS, 1)):
            query = f"{path}?{span.replace('model', 'line_item') if path == COSTS else span}"
            found, starts, page = [], [], ""
            while True:
                answer = (await rig.call("GET", f"{query}{page}")).json()
                assert len(answer["data"]) <= 4
                starts += [bucket["start_time"] for bucket in answer["data"]]
                found += [one for bucket in answer["data"] for one in bucket["results"]]
                assert answer["has_more"] is (answer["next_page"] is not None)
                if not answer["has_more"]:
                    break
                page = f"&page={answer['next_page']}"
            assert sorted({*starts}) == [first + day * 86_400 for day in range(days)]
            assert len(found) == count, (path, most)


@pytest.mark.parametrize("path", [*PATHS, COSTS])
async def test_other_organizations_are_not_there(
    rig: AdminRig, usage: RatedUsage, path: str
) -> None:
    """Nobody sees it without a key; a key sees its own, and what is another's as if missing."""
    mine, other = await _create(rig, usage, 1), await _create(rig, usage, 2)
    span = f"{path}?start_time={DAY}&end_time={DAY + 86_400}"
    nobody = await rig.call("GET", span, token="")
    expect_problem(nobody, 401, "err:control:auth:token_missing")
    token = await rig.create_token(mine["project"], "org_owner", READER)
    seen = (
        await rig.call("GET", f"{span}&group_by=project_id&group_by=api_key_id", token=token)
    ).text
    assert mine["key_id"] in seen
    assert other["project"] not in seen
    assert other["key_id"] not in seen
    for name, foreign, missing in (
        ("project_ids", other["project"], "prj_000000000000"),
        ("api_key_ids", other["key_id"], "0" * 12),
    ):
        own = mine["project" if name == "project_ids" else "key_id"]
        answers = [
            await rig.call("GET", f"{span}&{name}={own}&{name}={value}", token=token)
            for value in (foreign, missing)
        ]
        expect_problem(answers[0], 404, UNKNOWN)
        assert answers[0].content == answers[1].content
    blind = await rig.create_token(mine["project"], "inference_only", ["inference", *READER])
    expect_problem(
        await rig.call("GET", span, token=blind), 403, "err:control:access:operation_denied"
    )
    scope = ["usage:read"] if path == COSTS else ["costs:read"]
    half = await rig.create_token(mine["project"], "org_owner", scope)
    expect_problem(
        await rig.call("GET", span, token=half), 403, "err:control:access:operation_denied"
    )


@pytest.mark.parametrize("path", [*PATHS, COSTS])
async def test_a_member_of_a_project_sees_that_alone(
    rig: AdminRig, usage: RatedUsage, path: str
) -> None:
    """A key with a role in one project is answered for that project, whatever it leaves out."""
    mine = await _create(rig, usage, 1)
    sibling = await rig.create("/projects", organization_id=mine["organization"], name="sibling")
    theirs = {"organization": mine["organization"], "project": sibling["id"], "key_id": "k"}
    await usage.add([make_event(90, **theirs), make_event(91, **theirs, operation="embeddings")])
    token = await rig.create_token(mine["project"], "developer", READER)
    span = f"{path}?start_time={DAY}&end_time={DAY + 86_400}&group_by=project_id"
    answer = (await rig.call("GET", span, token=token)).json()
    assert [one["project_id"] for one in answer["data"][0]["results"]] == [mine["project"]]


WRONG = (
    ("bucket_width=1m", "bucket_width"),
    ("group_by=user_id", "group_by"),
    ("group_by[]=model&group_by[]=batch", "group_by"),
    ("user_ids=somebody", "user_ids"),
    ("batch=true", "batch"),
    ("limit=0", "limit"),
    ("unknown=1", "unknown"),
    ("start_time=2", "start_time"),
)


async def test_what_is_not_kept_is_refused(rig: AdminRig) -> None:
    """Minutes, users and batches are 400 and named, and so is what OpenAI refuses itself."""
    for query, parameter in WRONG:
        answer = await rig.call("GET", f"{PATHS[0]}?start_time=1&{query}")
        expect_problem(answer, 400, "err:control:request:invalid")
        assert {one["parameter"].partition(".")[0] for one in answer.json()["errors"]} == {
            parameter
        }
    for query in ("limit=32", "bucket_width=1h&limit=169", "end_time=1"):
        answer = await rig.call("GET", f"{PATHS[0]}?start_time=1&{query}")
        expect_problem(answer, 400, "err:control:metering:grouping_unknown")
    for path in (*PATHS, COSTS):
        answer = await rig.call("GET", f"{path}?start_time=1&page=made-up")
        expect_problem(answer, 400, "err:control:metering:cursor_invalid")
    client = _client(rig, "admin-token-of-these-tests")
    with pytest.raises(BadRequestError) as refused:
        await client.admin.organization.usage.completions(start_time=DAY, bucket_width="1m")
    assert "not by minute" in refused.value.response.text
