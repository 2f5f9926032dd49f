"""The catalog from the admin API to every worker, in real processes."""

import json
import statistics
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.fakes.emulator_process import running_emulator
from tests.fakes.plane import Plane, running_plane

WORKERS = 2
IN_A_ROW = 6 * WORKERS
"""So many new connections in a row surely met every worker."""
CHANGES = 10
BOUND_S = 1.0
WAIT_S = 60.0
ALIAS = "fast"
Ways = tuple[dict[str, Any], dict[str, Any]]
"""What closes one, and what opens it again."""


@pytest.fixture(scope="module")
def engine() -> Iterator[str]:
    """The emulator, with two models that name themselves in their answers."""
    with running_emulator("first", "second") as url:
        yield url


@dataclass
class World:
    """An alias that is not open, all that it leads to, and a key that may use it."""

    plane: Plane
    client: httpx.AsyncClient
    ids: dict[str, str] = field(default_factory=dict)
    key: str = ""
    stranger: str = ""
    """A key of another organization."""

    async def build(self, engine: str) -> None:
        """Create everything over the admin API."""
        create, ids = self.plane.create, self.ids
        upstream = await create(
            "/upstreams", name="gpu", provider="emulator", endpoints=[engine], region="eu-de"
        )
        ids["upstream"] = upstream["id"]
        for model in ("first", "second"):
            deployment = await create(
                "/deployments", name=model, upstream_id=upstream["id"], model=model
            )
            ids[model] = deployment["id"]
        choices = [{"deployment_id": ids["first"]}]
        ids["route"] = (await create("/routes", name="main", choices=choices))["id"]
        ids["alias"] = (await create("/aliases", name=ALIAS, route_id=ids["route"]))["id"]
        self.key = await self._create_key("acme")
        self.stranger = await self._create_key("other")
        grant = await create(
            "/grants",
            alias_id=ids["alias"],
            organization_id=ids["acme"],
            project_id=ids["acme project"],
        )
        ids["grant"] = grant["id"]

    async def _create_key(self, name: str) -> str:
        organization = await self.plane.create("/organizations", name=name)
        project = await self.plane.create(
            "/projects", organization_id=organization["id"], name=name
        )
        self.ids |= {name: organization["id"], f"{name} project": project["id"]}
        key = await self.plane.create("/keys", project_id=project["id"], name=name)
        secret: str = key["secret"]
        return secret

    async def patch(self, path: str, **body: Any) -> None:
        """Change an object as the operator."""
        answer = await self.plane.call("PATCH", path, body)
        assert answer.status_code == 200, answer.text

    async def ask(self, key: str, **members: Any) -> httpx.Response:
        """Send a chat over a new connection: any worker may answer it."""
        body = {"model": ALIAS, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}
        url = f"http://127.0.0.1:{self.plane.port}/v1/chat/completions"
        headers = {"authorization": f"Bearer {key}"}
        return await self.client.post(url, json=body | members, headers=headers)

    async def answered(self, key: str) -> str:
        """Return what a chat comes to: the model that answered, or the error's code."""
        answer = await self.ask(key)
        if answer.status_code == 200:
            model: str = answer.json()["model"]
            return model
        error = answer.json()["error"]
        return f"{answer.status_code} {error['code']}"

    async def until(self, key: str, wanted: str) -> float:
        """Return the seconds until all workers surely answer like this."""
        begun_s = last_other_s = time.monotonic()
        in_a_row = 0
        while in_a_row < IN_A_ROW:
            sent_s = time.monotonic()
            found = await self.answered(key)
            if found == wanted:
                in_a_row += 1
            else:
                in_a_row, last_other_s = 0, sent_s
            assert sent_s - begun_s < WAIT_S, f"{found} instead of {wanted}"
        return last_other_s - begun_s


@pytest.fixture
async def world(tmp_path: Path, engine: str) -> AsyncIterator[World]:
    """Set everything up, with two workers."""
    lonely = httpx.Limits(max_keepalive_connections=0)
    async with (
        running_plane(tmp_path, workers=WORKERS) as plane,
        httpx.AsyncClient(limits=lonely, timeout=WAIT_S) as client,
    ):
        world = World(plane, client)
        await world.build(engine)
        await world.until(world.key, "first")
        yield world


async def test_a_granted_project_streams_and_others_see_no_model(world: World) -> None:
    """A key of the project streams a whole answer; to another organization the model is unknown."""
    answer = await world.ask(world.key, stream=True)
    events = [line.removeprefix("data: ") for line in answer.text.splitlines() if line]
    assert events[-1] == "[DONE]"
    assert {json.loads(event)["model"] for event in events[:-1]} == {"first"}
    granted = await world.ask(world.stranger)
    unknown = await world.ask(world.stranger, model="no-such-model")
    assert granted.status_code == unknown.status_code == 404
    texts = [one.text.replace("no-such-model", ALIAS) for one in (granted, unknown)]
    assert texts[0] == texts[1]


async def test_a_changed_route_acts_on_every_worker_within_a_second(world: World) -> None:
    """Ten times over, a route's other choice is taken by both workers, mostly in time."""
    delays: list[float] = []
    deadline_s = time.monotonic() + WAIT_S
    # A machine that does much else may hold some of them up, and for a while all.
    while len(delays) < CHANGES or statistics.median(delays[-CHANGES:]) > BOUND_S:
        assert time.monotonic() < deadline_s, delays
        model = ("second", "first")[len(delays) % 2]
        choices = [{"deployment_id": world.ids[model]}]
        await world.patch(f"/routes/{world.ids['route']}", choices=choices)
        delays.append(await world.until(world.key, model))


async def test_whatever_closes_a_way_closes_it_on_every_worker(world: World) -> None:
    """Grant, policy, and disabled objects act, most within a second; their undoing opens again."""
    ids = world.ids
    project = f"/projects/{ids['acme project']}"
    unknown = "404 model_not_found"
    regions: Ways = ({"allowed_regions": ["us"]}, {"allowed_regions": ["eu-de", "us"]})
    classes: Ways = ({"allowed_data_classes": []}, {"allowed_data_classes": None})
    disabled: Ways = ({"is_disabled": True}, {"is_disabled": False})
    delays = [BOUND_S + 1]
    deadline_s = time.monotonic() + WAIT_S
    # As above: a machine may be busy for a while.
    while statistics.median(delays) > BOUND_S:
        assert time.monotonic() < deadline_s, delays
        delays = []
        for path, (closing, opening), wanted in (
            (project, regions, "403 residency_denied"),
            (project, classes, "403 residency_denied"),
            (f"/upstreams/{ids['upstream']}", disabled, unknown),
            (f"/deployments/{ids['first']}", disabled, unknown),
        ):
            await world.patch(path, **closing)
            delays.append(await world.until(world.key, wanted))
            await world.patch(path, **opening)
            delays.append(await world.until(world.key, "first"))
    assert (await world.plane.call("DELETE", f"/grants/{ids['grant']}")).status_code == 204
    await world.until(world.key, unknown)
    await world.patch(f"/aliases/{ids['alias']}", is_open=True)
    await world.until(world.stranger, "first")
    assert (await world.plane.call("DELETE", f"/aliases/{ids['alias']}")).status_code == 204
    await world.until(world.key, unknown)
