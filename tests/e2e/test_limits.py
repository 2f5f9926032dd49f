"""Limits from the admin API to every worker and their use back again, in real processes."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
from tests.fakes.emulator_process import running_emulator
from tests.fakes.plane import Plane, running_plane

WORKERS = 2
IN_A_ROW = 6 * WORKERS
"""So many new connections in a row surely met every worker."""
WAIT_S = 60.0
ALIAS = "fast"


async def _build(plane: Plane, engine: str) -> dict[str, Any]:
    """Create an alias for everybody, and a project; return the project."""
    upstream = await plane.create("/upstreams", name="gpu", provider="emulator", endpoints=[engine])
    deployment = await plane.create(
        "/deployments", name="one", upstream_id=upstream["id"], model="one"
    )
    choices = [{"deployment_id": deployment["id"]}]
    route = await plane.create("/routes", name="main", choices=choices)
    await plane.create("/aliases", name=ALIAS, route_id=route["id"], is_open=True)
    organization = await plane.create("/organizations", name="acme")
    return await plane.create("/projects", organization_id=organization["id"], name="acme")


async def _ask(client: httpx.AsyncClient, plane: Plane, secret: str) -> httpx.Response:
    body = {"model": ALIAS, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}
    url = f"http://127.0.0.1:{plane.port}/v1/chat/completions"
    return await client.post(url, json=body, headers={"authorization": f"Bearer {secret}"})


async def _ask_decided(client: httpx.AsyncClient, plane: Plane, secret: str) -> httpx.Response:
    """Ask until somebody decides: a busy agent may not answer a worker in time, which is 503."""
    deadline_s = time.monotonic() + WAIT_S
    while (answer := await _ask(client, plane, secret)).status_code == 503:
        assert time.monotonic() < deadline_s, answer.text
        await asyncio.sleep(0.05)
    return answer


async def _use_up(ask_many: Callable[[], Awaitable[Counter[int]]], count: int) -> None:
    """Ask until so many were served, and see others refused.

    What a worker was given too late for those who waited, others find a moment later.
    """
    deadline_s = time.monotonic() + WAIT_S
    served = 0
    while True:
        seen = await ask_many()
        assert set(seen) <= {200, 429}
        served += seen[200]
        assert served <= count
        if served == count and seen[429]:
            return
        assert time.monotonic() < deadline_s, served


async def _until_known(client: httpx.AsyncClient, plane: Plane, project_id: str) -> None:
    """Wait until all workers know what was changed before, and all that goes with it."""
    key = await plane.create("/keys", project_id=project_id, name=f"at {time.monotonic()}")
    deadline_s, in_a_row = time.monotonic() + WAIT_S, 0
    while in_a_row < IN_A_ROW:
        answer = await _ask(client, plane, key["secret"])
        in_a_row = in_a_row + 1 if answer.status_code == 200 else 0
        assert time.monotonic() < deadline_s, answer.text


async def _patch(plane: Plane, path: str, **body: Any) -> None:
    answer = await plane.call("PATCH", path, body)
    assert answer.status_code == 200, answer.text


async def test_limits_act_on_every_worker_and_their_use_is_shown(tmp_path: Path) -> None:
    """A limit is exact over all workers, a raise gives what it says, and what was used is told."""
    lonely = httpx.Limits(max_keepalive_connections=0)
    with running_emulator("one") as engine:
        async with (
            running_plane(tmp_path, workers=WORKERS) as plane,
            httpx.AsyncClient(limits=lonely, timeout=WAIT_S) as client,
        ):
            project = await _build(plane, engine)
            key = await plane.create("/keys", project_id=project["id"], name="limited")
            plan = await plane.create("/plans", name="trial", rules=[_rule(100)])
            made = await plane.create("/limits", key_id=key["id"], plan_id=plan["id"])
            path = f"/limits/{made['id']}"
            await _patch(plane, path, rules=[_rule(4)])
            await _until_known(client, plane, project["id"])

            async def ask_many() -> Counter[int]:
                answers = [_ask_decided(client, plane, key["secret"]) for _ in range(16)]
                return Counter(answer.status_code for answer in await asyncio.gather(*answers))

            await _use_up(ask_many, 4)
            raised = {"raised_limit": 6, "raised_until": "2100-01-01T00:00:00Z"}
            await _patch(plane, path, rules=[_rule(4, **raised)])
            await _until_known(client, plane, project["id"])
            await _use_up(ask_many, 2)
            deadline_s = time.monotonic() + WAIT_S
            shown: list[dict[str, Any]] = []
            while [one["used"] for one in shown] != [6]:
                assert time.monotonic() < deadline_s, shown
                await asyncio.sleep(0.2)
                answer = await plane.call("GET", f"/limits/use?key_id={key['id']}")
                shown = answer.json()["data"]
            assert (shown[0]["limit"], shown[0]["limit_now"]) == (4, 6)
            # Without a rule of its own, the plan's holds.
            await _patch(plane, path, rules=[])
            await _until_known(client, plane, project["id"])
            assert await ask_many() == {200: 16}


def _rule(limit: int, **members: Any) -> dict[str, Any]:
    return {"metric": "requests", "limit": limit, "window_s": 3_600, **members}
