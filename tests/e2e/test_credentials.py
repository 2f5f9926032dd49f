"""Upstream credentials from the admin API to the engine, in real processes."""

import asyncio
import signal
import statistics
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.plane import Plane, running_plane
from tests.fakes.recording_engine import RecordingEngine, running_engine

CHANGES = 6
BOUND_S = 1.0
WAIT_S = 60.0
MODEL = "recorded"


@pytest.fixture
def engine() -> Iterator[RecordingEngine]:
    """An engine that remembers what it was sent."""
    with running_engine() as engine:
        yield engine


@dataclass
class World:
    """A model on the engine, with a credential of the platform, and a key to use it."""

    plane: Plane
    engine: RecordingEngine
    credential: dict[str, Any]
    upstream: dict[str, Any]

    async def create_key(self, name: str) -> tuple[str, str]:
        """Return a new organization and a key of it."""
        organization = await self.plane.create("/organizations", name=name)
        owned = {"organization_id": organization["id"], "name": name}
        project = await self.plane.create("/projects", **owned)
        key = await self.plane.create("/keys", project_id=project["id"], name=name)
        return organization["id"], key["secret"]

    async def set_secret(self, secret: str) -> None:
        """Give the platform's credential another secret."""
        path = f"/credentials/{self.credential['id']}"
        answer = await self.plane.call("PATCH", path, {"secret": secret})
        assert answer.status_code == 200, answer.text

    async def until_sent(self, key: str, secret: str) -> float:
        """Chat until the engine is shown this secret; return how long that took."""
        begun_s = time.monotonic()
        while True:
            status = await self.plane.chat(key, MODEL)
            if status == 200 and self.shown() == f"Bearer {secret}":
                return time.monotonic() - begun_s
            assert time.monotonic() - begun_s < WAIT_S, (status, self.shown())
            await asyncio.sleep(0.02)

    def shown(self) -> str | None:
        """Return the authorization that the engine was shown last."""
        return self.engine.seen[-1].header.get("authorization") if self.engine.seen else None


@pytest.fixture
async def world(tmp_path: Path, engine: RecordingEngine) -> AsyncIterator[World]:
    """Set up a model over the admin API."""
    async with running_plane(tmp_path) as plane:
        credential = await plane.create(
            "/credentials", name="engine", provider="vllm", secret="sk-canary-1"
        )
        upstream = await plane.create(
            "/upstreams",
            name="engines",
            provider="vllm",
            endpoints=[f"http://127.0.0.1:{engine.port}"],
            credential_id=credential["id"],
        )
        deployment = await plane.create(
            "/deployments", name="served", upstream_id=upstream["id"], model="served-model"
        )
        route = await plane.create(
            "/routes", name="recorded", choices=[{"deployment_id": deployment["id"]}]
        )
        await plane.create("/aliases", name=MODEL, route_id=route["id"], is_open=True)
        yield World(plane, engine, credential, upstream)


async def test_a_credential_reaches_the_engine_and_no_disk(world: World) -> None:
    """The engine is shown the secret, a changed one within a second, and no file ever holds it."""
    _, key = await world.create_key("acme")
    await world.until_sent(key, "sk-canary-1")
    delays: list[float] = []
    deadline_s = time.monotonic() + WAIT_S
    # A machine that does much else may hold some of them up, and for a while all.
    while len(delays) < CHANGES or statistics.median(delays[-CHANGES:]) > BOUND_S:
        assert time.monotonic() < deadline_s, delays
        secret = f"sk-canary-{len(delays) + 2}"
        await world.set_secret(secret)
        delays.append(await world.until_sent(key, secret))
    files = [path for path in world.plane.data.rglob("*") if path.is_file()]
    assert len(files) > 10
    for path in files:
        if path.suffix != ".mdb":
            assert b"sk-canary" not in path.read_bytes(), path
    store = world.plane.data / "node" / "snapshot" / "data.mdb"
    with store.open("rb") as content:  # 16 GiB of address space, of which little is there
        assert b"sk-canary" not in content.read(64 * 1024 * 1024)


async def test_a_node_serves_on_without_the_control_plane(world: World) -> None:
    """With the control plane killed a restarted node opens what it has, and the engine gets it."""
    _, key = await world.create_key("acme")
    await world.until_sent(key, "sk-canary-1")
    await world.plane.end("control", signal.SIGKILL)
    await world.plane.end("node", signal.SIGTERM)
    await world.plane.start_node()
    world.engine.seen.clear()
    assert await world.plane.chat(key, MODEL) == 200
    assert world.shown() == "Bearer sk-canary-1"


async def test_an_own_credential_is_for_its_organization_only(world: World) -> None:
    """An organization's own credential is sent for its requests and for nobody else's."""
    acme, key = await world.create_key("acme")
    _, other_key = await world.create_key("other")
    await world.until_sent(key, "sk-canary-1")
    own = await world.plane.create(
        "/credentials",
        name="own",
        provider="vllm",
        secret="sk-of-acme",
        organization_id=acme,
        upstream_id=world.upstream["id"],
    )
    await world.until_sent(key, "sk-of-acme")
    for _ in range(5):
        assert await world.plane.chat(other_key, MODEL) == 200
        assert world.shown() == "Bearer sk-canary-1"
        assert await world.plane.chat(key, MODEL) == 200
        assert world.shown() == "Bearer sk-of-acme"
    answer = await world.plane.call("DELETE", f"/credentials/{own['id']}")
    assert answer.status_code == 204
    await world.until_sent(key, "sk-canary-1")
