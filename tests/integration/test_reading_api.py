"""Figures, costs and exports over HTTP: whose they are, what is told of them, and to whom."""

import csv
import io
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.admin_rig import ADMIN_TOKEN, AdminRig, expect_problem, run_admin_api
from tests.fakes.databases import sqlite_database
from tests.fakes.rated_usage import RatedUsage
from tests.unit.metering.usage_events import STARTED_AT_NS, make_event

from penstock.storage.database import Database

UNKNOWN = "err:control:storage:object_unknown"
DENIED = "err:control:access:operation_denied"
MISSING = {"organization": "org_000000000000", "project": "prj_000000000000", "key_id": "0" * 12}
SPAN = "since=2025-06-01T00:00:00Z&until=2025-07-01T00:00:00Z"
PATHS = (
    "/usage/buckets?",
    "/costs?",
    *(f"/usage/export?{SPAN}&format=jsonl&rows={rows}&" for rows in ("events", "costs", "focus")),
)
READER = ["usage:read", "costs:read"]
ONE_EVENT = "0.000026"
"""12 input and 7 output tokens at 1 and 2 for a million."""
PAID = "0.000008641969"
"""7 output tokens at 1.234567."""


@dataclass(frozen=True)
class Place:
    """A project with a key and one event of it."""

    organization: str
    project: str
    key_id: str

    @property
    def ids(self) -> dict[str, str]:
        """The filters that mean this place, and the members of its events."""
        return {
            "organization": self.organization,
            "project": self.project,
            "key_id": self.key_id,
        }


@pytest.fixture
async def database(sqlite_template: Path, tmp_path: Path) -> AsyncIterator[Database]:
    """A SQLite file: what statements show of whom is tried on both kinds, below the API."""
    async with sqlite_database(sqlite_template, tmp_path) as database:
        yield database


@pytest.fixture
async def usage(database: Database) -> RatedUsage:
    """A database with a price, and what the platform pays."""
    usage = RatedUsage(database)
    await usage.set_price("fast")
    await usage.set_price("served-fast", kind="cost", rates=None, unit=0)
    return usage


@pytest.fixture
async def rig(usage: RatedUsage, tmp_path: Path) -> AsyncIterator[AdminRig]:
    """The admin API on that database."""
    async with run_admin_api(usage.database, tmp_path / "data") as rig:
        yield rig


async def _create_place(
    rig: AdminRig, usage: RatedUsage, number: int, organization: str | None = None, **members: Any
) -> Place:
    if organization is None:
        created = await rig.create("/organizations", name=f"organization {number}")
        organization = str(created["id"])
    project = await rig.create("/projects", organization_id=organization, name=f"project {number}")
    key = await rig.create("/keys", project_id=project["id"], name=f"key {number}")
    place = Place(organization, project["id"], key["id"])
    await usage.add([make_event(number, **place.ids, **members)])
    return place


async def _get(rig: AdminRig, path: str, token: str = ADMIN_TOKEN) -> Any:
    answer = await rig.call("GET", path, token=token)
    assert answer.status_code == 200, answer.text
    if "/export" in path:
        return answer.text
    return answer.json()


def _results(page: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for bucket in page["data"]:
        yield from bucket["results"]


async def test_anonymous_is_refused(rig: AdminRig, usage: RatedUsage) -> None:
    """Without a token nobody sees figures, costs or exports."""
    await _create_place(rig, usage, 1)
    for path in PATHS:
        expect_problem(await rig.call("GET", path, token=""), 401, "err:control:auth:token_missing")
        wrong = await rig.call("GET", path, token="wrong")
        expect_problem(wrong, 401, "err:control:auth:token_wrong")


@pytest.mark.parametrize("path", PATHS)
async def test_other_organizations_are_not_there(
    rig: AdminRig, usage: RatedUsage, path: str
) -> None:
    """A key sees its organization's, and what is another's byte for byte as if it were missing."""
    mine, other = await _create_place(rig, usage, 1), await _create_place(rig, usage, 2)
    token = await rig.create_token(mine.project, "billing_admin", READER)
    all_of_it = json.dumps(await _get(rig, f"{path}{_groups(path)}", token))
    assert mine.key_id in all_of_it
    assert not any(foreign in all_of_it for foreign in other.ids.values())
    assert "organization 2" not in all_of_it
    for name, foreign in other.ids.items():
        await _get(rig, f"{path}{name}={mine.ids[name]}", token)
        answers = [
            await rig.call("GET", f"{path}{name}={value}", token=token)
            for value in (foreign, MISSING[name])
        ]
        expect_problem(answers[0], 404, UNKNOWN)
        assert answers[0].content == answers[1].content


@pytest.mark.parametrize("path", PATHS)
async def test_other_projects_are_not_there(rig: AdminRig, usage: RatedUsage, path: str) -> None:
    """A key with a role in one project sees that project's alone."""
    mine = await _create_place(rig, usage, 1)
    sibling = await _create_place(rig, usage, 2, mine.organization)
    token = await rig.create_token(mine.project, "developer", READER)
    all_of_it = json.dumps(await _get(rig, f"{path}{_groups(path)}", token))
    assert mine.key_id in all_of_it
    assert sibling.key_id not in all_of_it
    assert sibling.project not in all_of_it
    for name in ("project", "key_id"):
        answers = [
            await rig.call("GET", f"{path}{name}={value}", token=token)
            for value in (sibling.ids[name], MISSING[name])
        ]
        expect_problem(answers[0], 404, UNKNOWN)
        assert answers[0].content == answers[1].content


def _groups(path: str) -> str:
    return "" if "/export" in path else "group_by=organization,project,key_id,model"


@pytest.mark.parametrize("path", PATHS)
async def test_a_role_that_reads_nothing_is_denied(
    rig: AdminRig, usage: RatedUsage, path: str
) -> None:
    """A scope gives no more than the role does: a key for inference sees nothing."""
    mine = await _create_place(rig, usage, 1)
    token = await rig.create_token(mine.project, "inference_only", ["inference", *READER])
    expect_problem(await rig.call("GET", path, token=token), 403, DENIED)


async def test_labels_of_other_projects_are_not_there(rig: AdminRig, usage: RatedUsage) -> None:
    """Labels are shown by project: to who may see one project only, those of that one."""
    mine = await _create_place(rig, usage, 1, labels=(("cost", "mine"),))
    sibling = await _create_place(rig, usage, 2, mine.organization, labels=(("cost", "sibling"),))
    other = await _create_place(rig, usage, 3, labels=(("cost", "other"),))
    owner = await rig.create_token(mine.project, "org_owner", READER)
    member = await rig.create_token(mine.project, "project_admin", READER)
    for path in ("/usage/buckets", "/costs"):
        query = f"{path}?bucket=month&group_by=label:cost"
        values = [result["label_value"] for result in _results(await _get(rig, query, owner))]
        assert values == ["mine", "sibling"]
        (only,) = _results(await _get(rig, query, member))
        assert only["label_value"] == "mine"
        (named,) = _results(await _get(rig, f"{query}&project={sibling.project}", owner))
        assert named["label_value"] == "sibling"
        groups = f"{path}?bucket=month&group_by=project,label:cost"
        pairs = {(one["project"], one["label_value"]) for one in _results(await _get(rig, groups))}
        assert pairs == {
            (mine.project, "mine"),
            (sibling.project, "sibling"),
            (other.project, "other"),
        }
        for project in (sibling.project, other.project, MISSING["project"]):
            hidden = await rig.call("GET", f"{query}&project={project}", token=member)
            expect_problem(hidden, 404, UNKNOWN)
        refused = await rig.call("GET", f"{query}&key_id={mine.key_id}", token=member)
        expect_problem(refused, 400, "err:control:metering:grouping_unknown")
        foreign = await rig.call("GET", f"{query}&organization={other.organization}", token=owner)
        expect_problem(foreign, 404, UNKNOWN)


async def test_what_the_platform_pays_is_the_operators(rig: AdminRig, usage: RatedUsage) -> None:
    """Cost and margin are told to the operator, and nobody else is told that there are any."""
    await usage.set_price("served-dear", kind="cost", rates={"output": {"price": "1.234567"}})
    mine = await _create_place(rig, usage, 1, served_model="served-dear")
    (result,) = _results(await _get(rig, "/costs?group_by=model"))
    names = ("model", "currency", "amount", "cost", "margin")
    assert [result[name] for name in names] == ["fast", "EUR", ONE_EVENT, PAID, "0.000017358031"]
    export = f"/usage/export?{SPAN}&rows=costs"
    assert "cost,margin" in await _get(rig, export)
    owner = await rig.create_token(mine.project, "org_owner", ["admin"])
    (result,) = _results(await _get(rig, "/costs?group_by=model", owner))
    assert (result["amount"], "cost" in result, "margin" in result) == (ONE_EVENT, False, False)
    for rows in ("costs", "focus", "events"):
        text = await _get(rig, f"/usage/export?{SPAN}&rows={rows}", owner)
        head = text.partition("\r\n")[0]
        assert not {"cost", "margin"} & {*head.split(",")}
        assert PAID not in text


async def test_a_page_has_the_usual_shape(rig: AdminRig, usage: RatedUsage) -> None:
    """Buckets are in pages as OpenAI's clients know them, and every result is on one page."""
    place = await _create_place(rig, usage, 1, cached_input_tokens=5)
    await usage.add([make_event(2, **place.ids, model="slow")])
    first = await _get(rig, "/usage/buckets?bucket=hour&group_by=project,model&limit=1")
    assert first["object"] == "page"
    assert first["has_more"] is True
    ((bucket,), second) = (
        first["data"],
        await _get(
            rig,
            f"/usage/buckets?bucket=hour&group_by=project,model&limit=1&page={first['next_page']}",
        ),
    )
    start = STARTED_AT_NS // 10**9 // 3_600 * 3_600
    assert (bucket["object"], bucket["start_time"], bucket["end_time"]) == (
        "bucket",
        start,
        start + 3_600,
    )
    assert bucket["results"] == [
        {
            "object": "usage.result",
            "organization": None,
            "organization_name": None,
            "project": place.project,
            "project_name": "project 1",
            "key_id": None,
            "key_name": None,
            "model": "fast",
            "data_class": None,
            "label_value": None,
            "region": None,
            "requests": 1,
            "input_tokens": 12,
            "output_tokens": 7,
            "cached_input_tokens": 5,
            "cache_write_input_tokens": 0,
            "audio_input_tokens": 0,
            "reasoning_output_tokens": 3,
            "audio_output_tokens": 0,
            "images": 0,
            "audio_seconds": 0,
            "characters": 0,
        }
    ]
    assert [result["model"] for result in _results(second)] == ["slow"]
    assert (second["has_more"], second["next_page"]) == (False, None)


WRONG = (
    ("/usage/buckets?group_by=outcome", "group_by"),
    ("/usage/buckets?group_by=model,model", "group_by"),
    ("/usage/buckets?group_by=label:a,label:b", "group_by"),
    ("/usage/buckets?group_by=label:", "group_by"),
    ("/usage/buckets?bucket=year", "bucket"),
    ("/usage/buckets?limit=1001", "limit"),
    ("/usage/buckets?since=2026-01-01", "since"),
    ("/usage/buckets?tz=Europe/Atlantis", "tz"),
    ("/usage/buckets?tz=../../etc/passwd", "tz"),
    ("/usage/buckets?tz=/etc/localtime", "tz"),
    ("/costs?bucket=hour", "bucket"),
    ("/costs?group_by=region", "group_by"),
    ("/costs?region=de", "region"),
    ("/usage/export?format=xml", "format"),
    ("/usage/export?format=cloudevents&rows=costs", "format"),
)


async def test_a_wrong_parameter_is_named(rig: AdminRig) -> None:
    """A parameter that is wrong or unknown is answered with 400 and its name."""
    for path, parameter in WRONG:
        answer = await rig.call("GET", path)
        expect_problem(answer, 400, "err:control:request:invalid")
        assert [problem["parameter"] for problem in answer.json()["errors"]] == [parameter]


async def test_a_made_up_page_is_refused(rig: AdminRig) -> None:
    """A page that no answer named is 400, whatever it decodes to."""
    for page in ("made-up", "W10", "WzEsImEiLCJiIl0", "WyJhIl0", "Wy0xXQ", "WzFlOTld"):
        for path in ("/usage/buckets", "/costs"):
            answer = await rig.call("GET", f"{path}?page={page}")
            expect_problem(answer, 400, "err:control:metering:cursor_invalid")


async def test_focus_needs_a_span(rig: AdminRig) -> None:
    """FOCUS rows are written for a span that has two ends and is no longer than a year."""
    for query in ("", "&since=2026-01-01T00:00:00Z", SPAN.replace("2025-06", "2020-06")):
        answer = await rig.call("GET", f"/usage/export?rows=focus&{query.lstrip('&')}")
        expect_problem(answer, 400, "err:control:exports:span_missing")


async def test_exports_agree(rig: AdminRig, usage: RatedUsage) -> None:
    """CSV, JSON lines and Parquet have the same rows, and texts that begin a formula are none."""
    parquet = pytest.importorskip("pyarrow.parquet")
    formula = "=HYPERLINK(1)"
    await usage.add(
        [make_event(number, upstream=formula, flags=("usage_missing",)) for number in range(3)]
    )
    lines = [
        json.loads(line) for line in (await _get(rig, "/usage/export?format=jsonl")).splitlines()
    ]
    assert [line["request_id"] for line in lines] == ["request-0", "request-1", "request-2"]
    rows = list(csv.DictReader(io.StringIO(await _get(rig, "/usage/export"), newline="")))
    assert [row["upstream"] for row in rows] == [f"'{formula}"] * 3
    assert [row["flags"] for row in rows] == ['["usage_missing"]'] * 3
    assert [int(row["input_tokens"]) for row in rows] == [line["input_tokens"] for line in lines]
    answer = await rig.call("GET", "/usage/export?format=parquet")
    assert answer.headers["content-disposition"] == 'attachment; filename="usage-events.parquet"'
    found = parquet.read_table(io.BytesIO(answer.content)).to_pylist()
    assert [row["upstream"] for row in found] == [formula] * 3
    plain = [name for name, value in lines[0].items() if not isinstance(value, list | dict)]
    assert [[row[name] for name in plain] for row in found] == [
        [line[name] for name in plain] for line in lines
    ]


async def test_days_of_a_time_zone(rig: AdminRig, usage: RatedUsage) -> None:
    """Usage and costs are told by days of a zone, with the seconds at which these begin and end."""
    await _create_place(rig, usage, 1)
    day = 1_749_938_400  # 2025-06-15 00:00 in Berlin
    assert day < STARTED_AT_NS // 10**9 < day + 86_400
    for path in ("/usage/buckets", "/costs"):
        (bucket,) = (await _get(rig, f"{path}?bucket=day&tz=Europe/Berlin"))["data"]
        assert (bucket["start_time"], bucket["end_time"]) == (day, day + 86_400)
        assert len(bucket["results"]) == 1
        refused = await rig.call("GET", f"{path}?group_by=label:cost&tz=Europe/Berlin")
        expect_problem(refused, 400, "err:control:metering:grouping_unknown")
