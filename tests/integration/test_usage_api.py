"""The control plane over HTTP, on real SQLite files."""

import base64
import hashlib
import re
import shutil
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fakes.effort import tries
from tests.unit.metering.usage_events import STARTED_AT_NS, make_body, make_event

from penstock.contract.cloud_event import SCHEMA_PATH, event_schema
from penstock.contract.usage import Attempt
from penstock.control.app import create_app
from penstock.control.settings import ControlSettings
from penstock.kit.clock import ManualClock

NODE_TOKEN = "node-token-of-these-tests"
ADMIN_TOKEN = "admin-token-of-these-tests"
NODE = {"authorization": f"Bearer {NODE_TOKEN}"}
ADMIN = {"authorization": f"Bearer {ADMIN_TOKEN}"}
BASIC = httpx.BasicAuth("anybody", ADMIN_TOKEN)
PROTECTED = [
    ("POST", "/node/v1/usage"),
    ("GET", "/api/v1/usage"),
    ("GET", "/api/v1/usage/totals"),
    ("GET", "/api/v1/usage/totals?by=model"),
    ("GET", "/"),
]


@pytest.fixture
def data(sqlite_template: Path, tmp_path: Path) -> Path:
    """A data folder with tokens and an empty database."""
    folder = tmp_path / "data"
    (folder / "secrets").mkdir(parents=True)
    shutil.copy(sqlite_template, folder / "usage.db")
    (folder / "secrets" / "node_token").write_text(NODE_TOKEN + "\n")
    (folder / "secrets" / "admin_token").write_text(ADMIN_TOKEN + "\n")
    return folder


@pytest.fixture
async def client(data: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a control plane whose clock stands still."""
    clock = ManualClock(STARTED_AT_NS + 3_600 * 10**9)
    app = create_app(ControlSettings(data_dir=str(data)), clock)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://control") as client,
    ):
        yield client


async def _ship(client: httpx.AsyncClient, *numbers: int) -> None:
    body = make_body(*(make_event(number) for number in numbers))
    (await client.post("/node/v1/usage", content=body, headers=NODE)).raise_for_status()


def _expect_problem(answer: httpx.Response, status: int, code: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"] == problem["code"] == code
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]


@pytest.mark.parametrize(("method", "path"), PROTECTED)
async def test_anonymous_is_refused(client: httpx.AsyncClient, method: str, path: str) -> None:
    """Without a token nothing is answered but how to send one."""
    answer = await client.request(method, path, content=b"")
    _expect_problem(answer, 401, "err:control:auth:token_missing")
    scheme = "Basic" if path == "/" else "Bearer"
    assert answer.headers["www-authenticate"].startswith(f'{scheme} realm="penstock"')


@pytest.mark.parametrize(("method", "path"), PROTECTED)
async def test_a_wrong_token_is_refused(
    client: httpx.AsyncClient, method: str, path: str, subtests: pytest.Subtests
) -> None:
    """No token but the right one opens a door, and each role has its own."""
    right, other = (
        (NODE_TOKEN, ADMIN_TOKEN) if path.startswith("/node") else (ADMIN_TOKEN, NODE_TOKEN)
    )
    for token in ("x" * 64, other, "", right + "x", right[:-1], "schl\xfcssel"):
        with subtests.test(token=token):
            headers = {b"authorization": f"Bearer {token}".encode("latin-1")}
            answer = await client.request(method, path, headers=headers, content=b"")
            assert answer.status_code == 401
            assert "www-authenticate" in answer.headers
            assert ADMIN_TOKEN not in answer.text
            assert NODE_TOKEN not in answer.text


@pytest.mark.parametrize("path", ["/api/v1/usage", "/"])
async def test_a_token_in_the_url_is_not_looked_at(client: httpx.AsyncClient, path: str) -> None:
    """A token in the URL opens nothing."""
    for name in ("token", "api_key", "access_token"):
        answer = await client.get(path, params={name: ADMIN_TOKEN})
        assert answer.status_code == 401


async def test_health_needs_no_token(client: httpx.AsyncClient) -> None:
    """Supervisors see life and readiness and nothing else."""
    assert (await client.get("/health/live")).json() == {"status": "live"}
    assert (await client.get(SCHEMA_PATH)).json() == event_schema()
    assert (await client.get("/health/ready")).json() == {
        "status": "ready",
        "database": "available",
    }


async def test_a_batch_is_stored_once(client: httpx.AsyncClient) -> None:
    """A node gets a receipt in JSON, and for the same batch again one of duplicates."""
    body = make_body(make_event(1), make_event(2))
    first = await client.post("/node/v1/usage", content=body, headers=NODE)
    again = await client.post("/node/v1/usage", content=body, headers=NODE)
    place = {"segment": 0, "offset": 0}
    assert first.json() == {"stored": 2, "duplicates": 0, "conflicts": 0, **place}
    assert again.json() == {"stored": 0, "duplicates": 2, "conflicts": 0, **place}
    other = make_body(make_event(2, status=500))
    conflict = await client.post("/node/v1/usage", content=other, headers=NODE)
    assert conflict.json() == {"stored": 0, "duplicates": 0, "conflicts": 1, **place}


async def test_a_row_has_every_member(client: httpx.AsyncClient) -> None:
    """A row shows the event as it was delivered, times as ISO 8601 to the microsecond."""
    attempt = Attempt("spare", "connect_failed", STARTED_AT_NS, STARTED_AT_NS + 2_000_000)
    event = make_event(
        1,
        flags=("usage_missing",),
        labels=(("team", "search"),),
        region="eu",
        image_count=2,
        earlier_attempts=(attempt,),
    )
    await client.post("/node/v1/usage", content=make_body(event), headers=NODE)
    answer = await client.get("/api/v1/usage", headers=ADMIN)
    assert answer.json() == {
        "data": [
            {
                "event_id": "01977f5e-3c00-7000-8000-000000000001",
                "request_id": "request-1",
                "organization": "acme",
                "project": "search",
                "key_id": "key-1",
                "model": "fast",
                "served_model": "served-fast",
                "upstream": "engines",
                "operation": "chat",
                "is_stream": True,
                "outcome": "ok",
                "status": 200,
                "error_code": None,
                "usage_source": "engine",
                "input_tokens": 12,
                "output_tokens": 7,
                "cached_input_tokens": None,
                "reasoning_output_tokens": 3,
                "attempt_count": 1,
                "started_at": "2025-06-15T15:06:41.123456Z",
                "first_byte_at": "2025-06-15T15:06:41.128456Z",
                "finished_at": "2025-06-15T15:06:41.213456Z",
                "flags": ["usage_missing"],
                "labels": {"team": "search"},
                "data_class": "",
                "region": "eu",
                "service_tier": "",
                "upstream_request_id": "",
                "cache_write_input_tokens": None,
                "audio_input_tokens": None,
                "audio_output_tokens": None,
                "image_count": 2,
                "earlier_attempts": [
                    {
                        "upstream": "spare",
                        "reason": "connect_failed",
                        "started_at": "2025-06-15T15:06:40.123456Z",
                        "finished_at": "2025-06-15T15:06:40.125456Z",
                    }
                ],
                "audio_seconds": 0,
                "characters": 0,
                "organization_name": None,
                "project_name": None,
                "key_name": None,
            }
        ],
        "next_cursor": None,
    }


async def test_pages_follow_each_other(client: httpx.AsyncClient) -> None:
    """Following the cursor shows every row once, oldest first."""
    await _ship(client, *range(25))
    seen, cursor = [], None
    for _ in range(3):
        params = {"limit": "10", **({"cursor": cursor} if cursor else {})}
        page = (await client.get("/api/v1/usage", params=params, headers=ADMIN)).json()
        seen += [row["request_id"] for row in page["data"]]
        cursor = page["next_cursor"]
    assert cursor is None
    assert seen == [f"request-{number}" for number in range(25)]


@pytest.mark.parametrize(
    ("params", "numbers"),
    [
        ({"since": "2025-06-15T15:06:42.123456Z"}, [2, 3]),
        ({"until": "2025-06-15T17:06:42.123456+02:00"}, [1]),
        ({"request_id": "request-2"}, [2]),
        ({"event_id": "01977f5e-3c00-7000-8000-000000000003"}, [3]),
        ({"outcome": "timeout"}, []),
        ({"organization": "acme", "project": "search", "key_id": "key-1"}, [1, 2, 3]),
        ({"model": "served-fast"}, []),
    ],
)
async def test_filters_narrow_rows_and_totals(
    client: httpx.AsyncClient, params: dict[str, str], numbers: list[int]
) -> None:
    """Rows and totals take the same filters and mean the same by them."""
    await _ship(client, 1, 2, 3)
    rows = await client.get("/api/v1/usage", params=params, headers=ADMIN)
    assert [row["request_id"] for row in rows.json()["data"]] == [f"request-{n}" for n in numbers]
    params = {**params, "by": "project"}
    totals = await client.get("/api/v1/usage/totals", params=params, headers=ADMIN)
    assert sum(total["requests"] for total in totals.json()["data"]) == len(numbers)


@pytest.mark.parametrize(
    ("by", "group"),
    [("organization", "acme"), ("project", "search"), ("key_id", "key-1"), ("model", "fast")],
)
async def test_totals_by_every_group(client: httpx.AsyncClient, by: str, group: str) -> None:
    """Totals name their group by what was asked for."""
    await _ship(client, 1, 2, 3)
    answer = await client.get("/api/v1/usage/totals", params={"by": by}, headers=ADMIN)
    name = {} if by == "model" else {f"{by.removesuffix('_id')}_name": None}
    assert answer.json() == {
        "data": [{by: group, **name, "requests": 3, "input_tokens": 36, "output_tokens": 21}]
    }


WRONG_PARAMETERS = (
    ("/api/v1/usage?limit=0", "limit"),
    ("/api/v1/usage?limit=1001", "limit"),
    ("/api/v1/usage?limit=many", "limit"),
    ("/api/v1/usage?since=yesterday", "since"),
    ("/api/v1/usage?since=2026-06-15T12:00:00", "since"),
    ("/api/v1/usage?until=2026-06-15T12:00:00+02:00", "until"),
    ("/api/v1/usage?outcome=good", "outcome"),
    ("/api/v1/usage?organisation=acme", "organisation"),
    ("/api/v1/usage?organization=acme&limit=1&organization=other", "organization"),
    ("/api/v1/usage/totals?by=model&by=project", "by"),
    ("/api/v1/usage/totals", "by"),
    ("/api/v1/usage/totals?by=outcome", "by"),
    ("/api/v1/usage/totals?by=model&limit=1", "limit"),
)


async def test_a_wrong_parameter_is_named(
    client: httpx.AsyncClient, subtests: pytest.Subtests
) -> None:
    """A parameter that is wrong, unknown or missing is answered with 400 and its name."""
    for path, parameter in WRONG_PARAMETERS:
        with subtests.test(path=path, parameter=parameter):
            answer = await client.get(path, headers=ADMIN)
            _expect_problem(answer, 400, "err:control:request:invalid")
            assert [problem["parameter"] for problem in answer.json()["errors"]] == [parameter]


async def test_a_made_up_cursor_is_refused(client: httpx.AsyncClient) -> None:
    """A cursor that no listing gave out is answered with 400."""
    answer = await client.get("/api/v1/usage?cursor=made-up", headers=ADMIN)
    _expect_problem(answer, 400, "err:control:metering:cursor_invalid")


BAD_BODIES = (
    b"",
    b"{}",
    b'{"producer": "node", "events": []}',
    b"\x91" * 10_000,
    b"\x82\xa1x" + b"\x91" * 1_000_000,
    b"\x81\xa8producer\xa1\xff",
    b"\x81\xa6events\xdd\xff\xff\xff\xff",
    make_body(),
    make_body(make_event(1))[:-1],
    make_body(make_event(1)) + b"\0",
    make_body(make_event(1), make_event(2, input_tokens=-1)),
    make_body(make_event(1, started_at_ns=2**63)),
    make_body(make_event(1, organization="a\0b")),
    msgspec.msgpack.encode({"producer": "node", "epoch": 1, "events": [["too short"]]}),
)


async def test_a_bad_body_is_refused(client: httpx.AsyncClient, subtests: pytest.Subtests) -> None:
    """A body that is no sound batch is 400, and nothing of it is stored."""
    for body in BAD_BODIES:
        with subtests.test(size=len(body), begin=body[:20]):
            answer = await client.post("/node/v1/usage", content=body, headers=NODE)
            _expect_problem(answer, 400, "err:control:metering:batch_invalid")
            assert (await client.get("/api/v1/usage", headers=ADMIN)).json()["data"] == []


@settings(max_examples=tries(60))
@given(data=st.data())
async def test_a_broken_batch_is_never_our_failure(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """A batch with any bytes flipped, cut out or put in is stored or refused."""
    body = bytearray(make_body(make_event(1), make_event(2)))
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(body)))
        end = data.draw(st.integers(start, min(start + 3, len(body))))
        body[start:end] = data.draw(st.binary(max_size=3))
    folder = tmp_path_factory.getbasetemp() / "broken-batches"
    app = create_app(ControlSettings(data_dir=str(folder)))
    token = (folder / "secrets" / "node_token").read_text()
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://control") as client,
    ):
        answer = await client.post(
            "/node/v1/usage",
            content=bytes(body),
            headers={"authorization": f"Bearer {token}"},
        )
    assert answer.status_code in {200, 400}


async def test_too_many_events_are_refused(client: httpx.AsyncClient) -> None:
    """500 events are stored and 501 are 413."""
    events = [make_event(number) for number in range(501)]
    answer = await client.post("/node/v1/usage", content=make_body(*events), headers=NODE)
    _expect_problem(answer, 413, "err:control:metering:batch_too_large")
    answer = await client.post("/node/v1/usage", content=make_body(*events[:500]), headers=NODE)
    assert answer.json()["stored"] == 500


@pytest.mark.parametrize("is_declared", [True, False])
async def test_a_long_body_is_not_read_to_its_end(
    client: httpx.AsyncClient, *, is_declared: bool
) -> None:
    """Beyond 8 MiB a body is 413 without being read on, whether its length was declared or not."""
    chunks_read = 0

    async def send() -> AsyncIterator[bytes]:
        nonlocal chunks_read
        for _ in range(20):
            chunks_read += 1
            yield bytes(1024 * 1024)

    headers = NODE | ({"content-length": str(20 * 1024 * 1024)} if is_declared else {})
    answer = await client.post("/node/v1/usage", content=send(), headers=headers)
    _expect_problem(answer, 413, "err:control:metering:batch_too_large")
    assert chunks_read <= (0 if is_declared else 9)


async def test_an_unauthenticated_body_is_not_read(client: httpx.AsyncClient) -> None:
    """Who has no token does not make us read anything."""
    is_read = False

    async def send() -> AsyncIterator[bytes]:
        nonlocal is_read
        is_read = True
        yield b"x"

    answer = await client.post("/node/v1/usage", content=send())
    assert answer.status_code == 401
    assert not is_read


async def test_unknown_paths_and_methods_are_problems(client: httpx.AsyncClient) -> None:
    """404 and 405 have the shape of every other error, and 405 says what is allowed."""
    _expect_problem(await client.get("/nope"), 404, "err:control:request:path_unknown")
    _expect_problem(await client.get("/health/live/"), 404, "err:control:request:path_unknown")
    _expect_problem(await client.get("/docs"), 404, "err:control:request:path_unknown")
    answer = await client.delete("/api/v1/usage", headers=ADMIN)
    _expect_problem(answer, 405, "err:control:request:method_not_allowed")
    assert answer.headers["allow"] == "GET"


async def test_a_locked_database_is_503(client: httpx.AsyncClient, data: Path) -> None:
    """While another process holds the lock shipping is 503 with Retry-After, then it works."""
    other = sqlite3.connect(data / "usage.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    body = make_body(make_event(1))
    answer = await client.post("/node/v1/usage", content=body, headers=NODE)
    _expect_problem(answer, 503, "err:control:storage:unavailable")
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.json()["is_retryable"] is True
    assert (await client.get("/api/v1/usage", headers=ADMIN)).status_code == 200
    other.execute("ROLLBACK")
    other.close()
    answer = await client.post("/node/v1/usage", content=body, headers=NODE)
    assert answer.json()["stored"] == 1


async def test_a_database_that_is_away_is_503(client: httpx.AsyncClient, data: Path) -> None:
    """Without its file everything that needs it is 503, who has no token still gets 401."""
    await _ship(client, 1)
    path = data / "usage.db"
    path.rename(data / "away.db")
    answers = [
        await client.get("/health/ready"),
        await client.get("/api/v1/usage", headers=ADMIN),
        await client.get("/api/v1/usage/totals?by=model", headers=ADMIN),
        await client.get("/", auth=BASIC),
        await client.post("/node/v1/usage", content=make_body(make_event(2)), headers=NODE),
    ]
    for answer in answers:
        _expect_problem(answer, 503, "err:control:storage:unavailable")
        assert "retry-after" in answer.headers
        assert str(data) not in answer.text
    assert (await client.get("/api/v1/usage")).status_code == 401
    assert (await client.get("/health/live")).status_code == 200
    (data / "away.db").rename(path)
    await _ship(client, 2)
    assert len((await client.get("/api/v1/usage", headers=ADMIN)).json()["data"]) == 2


@pytest.mark.parametrize("scheme", ["basic", "bearer"])
async def test_the_page_shows_usage(client: httpx.AsyncClient, scheme: str) -> None:
    """The page opens with the admin token in either scheme, and shows models and requests."""
    await _ship(client, *range(25))
    auth = BASIC if scheme == "basic" else None
    answer = await client.get("/", headers={} if auth else ADMIN, auth=auth)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert len(re.findall(r"<code>request-\d+</code>", answer.text)) == 20
    assert "request-24" in answer.text
    assert "request-4<" not in answer.text
    assert ADMIN_TOKEN not in answer.text


async def test_the_page_is_confined(client: httpx.AsyncClient) -> None:
    """The page's policy lets nothing in but its own style sheet, by its hash."""
    answer = await client.get("/", auth=BASIC)
    policy = answer.headers["content-security-policy"]
    style = answer.text.partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in policy
    assert " style=" not in answer.text
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"


async def test_the_page_counts_a_day(client: httpx.AsyncClient) -> None:
    """Totals on the page are those of the last 24 hours, requests are the latest of any age."""
    old = make_event(1, started_at_ns=STARTED_AT_NS - 25 * 3_600 * 10**9, model="older-model")
    body = make_body(old, make_event(2))
    await client.post("/node/v1/usage", content=body, headers=NODE)
    page = (await client.get("/", auth=BASIC)).text
    assert "<dd>1</dd>" in page
    assert page.count("older-model") == 1


async def test_the_document_describes_what_is_answered(client: httpx.AsyncClient) -> None:
    """The OpenAPI document is 3.1, says which token each operation needs and how errors look."""
    document = (await client.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    security = {
        (method, path): [name for entry in operation.get("security", []) for name in entry]
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }
    open_to_all = {place for place, schemes in security.items() if not schemes}
    assert open_to_all == {
        ("get", "/health/live"),
        ("get", "/health/ready"),
        ("get", "/schemas/usage-event.v1.json"),
    }
    assert security["post", "/node/v1/usage"] == ["nodeToken"]
    assert security["get", "/api/v1/usage"] == ["adminKey"]
    assert security["get", "/api/v1/keys"] == ["adminKey"]
    schemas = document["components"]["schemas"]
    references = set(re.findall(r'"#/components/schemas/(\w+)"', str(document).replace("'", '"')))
    assert references == schemas.keys()
    examples = {name for name, schema in schemas.items() if "examples" in schema}
    assert examples >= {"UsageRecord", "ModelTotal", "ReceiptBody", "Problem", "Live", "Ready"}
