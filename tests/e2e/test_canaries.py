"""Secrets and prompts in real processes: in no log, no metric, no error answer, at any level."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import msgspec
import pytest
from tests.fakes.plain_http import NO_TLS
from tests.fakes.plane import Plane, running_plane
from tests.fakes.ports import free_port
from tests.fakes.recording_engine import running_engine

from penstock.cli.debug import ask
from penstock.control.settings import ControlSettings

PROMPT = "canary-prompt-8814"
CREDENTIAL = "canary-credential-5527-xyzw"
PASSWORD = "canary-password-3390"
STRANGER = "ps_live_4mJ0wq8ZtK1c_" + "canary" * 6
WAIT_S = 60.0


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[Plane]:
    """A control plane and a node, with a model whose engine is shown a credential."""
    with running_engine() as engine:
        async with running_plane(tmp_path) as plane:
            credential = await plane.create(
                "/credentials", name="engine", provider="vllm", secret=CREDENTIAL
            )
            upstream = await plane.create(
                "/upstreams",
                name="engines",
                provider="vllm",
                endpoints=[f"http://127.0.0.1:{engine.port}"],
                credential_id=credential["id"],
                forward_headers=["x-emulator-*"],
            )
            deployment = await plane.create(
                "/deployments", name="served", upstream_id=upstream["id"], model="m"
            )
            route = await plane.create(
                "/routes", name="recorded", choices=[{"deployment_id": deployment["id"]}]
            )
            await plane.create("/aliases", name="recorded", route_id=route["id"], is_open=True)
            yield plane


async def _chat(
    plane: Plane, key: str, *, path: str = "/v1/chat/completions", **fields: str
) -> httpx.Response:
    body = {"model": "recorded", "messages": [{"role": "user", "content": PROMPT}]}
    headers = {"authorization": f"Bearer {key}"} | fields
    base = f"http://127.0.0.1:{plane.port}"
    async with httpx.AsyncClient(base_url=base, verify=NO_TLS, timeout=WAIT_S) as client:
        return await client.post(path, json=body, headers=headers)


def _logs(plane: Plane) -> dict[str, str]:
    return {path.name: path.read_text() for path in plane.data.rglob("*.log")}


async def _until_logged(plane: Plane, log: str, words: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while words not in _logs(plane).get(log, ""):
        assert time.monotonic() < deadline, _logs(plane)
        await asyncio.sleep(0.05)


async def test_no_secret_leaves_a_process(plane: Plane) -> None:
    """With all logs at `debug`, whatever goes well or wrong, no canary is where it must not be."""
    for process in ("agent", "control"):
        found = await asyncio.to_thread(
            ask, plane.data, process, "/log-level", {"level": "debug"}, WAIT_S, method="PUT"
        )
        assert found == {"level": "debug"}
    await _until_logged(plane, "worker-0.log", "kit.log_level_changed")

    organization = await plane.create("/organizations", name="acme")
    owned = {"organization_id": organization["id"], "name": "web"}
    project = await plane.create("/projects", **owned)
    key = (await plane.create("/keys", project_id=project["id"], name="web"))["secret"]
    deadline = time.monotonic() + WAIT_S
    while (await _chat(plane, key)).status_code != 200:
        assert time.monotonic() < deadline, _logs(plane)
        await asyncio.sleep(0.05)

    admin_token = (plane.data / "secrets" / "admin_token").read_text().strip()
    node_token = (plane.data / "secrets" / "node_token").read_text().strip()
    answers = [
        await _chat(plane, key, **{"x-emulator-status": "500"}),  # which tells what it was shown
        await _chat(plane, key, path=f"/v1/nowhere?key={key}"),
        await _chat(plane, STRANGER),
        await plane.call("POST", "/credentials", {"name": 7, "secret": CREDENTIAL}),
        await plane.call("POST", f"/organizations?token={admin_token}", {"name": "acme"}),
    ]
    assert [answer.status_code for answer in answers] == [502, 404, 401, 400, 409]
    last = await _chat(
        plane, STRANGER, **{"x-request-id": key}
    )  # its own words, and no answer of ours
    assert last.status_code == 401
    await _until_logged(plane, "node.log", '"request_id":"ps_live_[redacted]"')

    pages = []
    async with httpx.AsyncClient(verify=NO_TLS) as client:
        pages.append((await client.get(f"http://127.0.0.1:{plane.metrics_port}/metrics")).text)
        headers = {"authorization": f"Bearer {node_token}"}
        pages.append((await client.get(f"{plane.control_url}/metrics", headers=headers)).text)
    logs = _logs(plane)
    assert {"control.log", "node.log", "worker-0.log"} <= logs.keys()
    for line in "".join(logs.values()).splitlines():
        assert json.loads(line)["event"]
    for secret in (PROMPT, CREDENTIAL, STRANGER, "canarycanary", key, admin_token, node_token):
        for shown in (*logs.values(), *pages, *(answer.text for answer in answers)):
            assert secret not in shown


def test_a_database_that_is_away_is_told_without_its_password(tmp_path: Path) -> None:
    """The address of a database is a secret: a start that cannot reach it does not show it."""
    settings = ControlSettings(data_dir=str(tmp_path), port=free_port(), database="env:CANARY")
    address = f"postgresql://penstock:{PASSWORD}@127.0.0.1:{free_port()}/books"
    done = subprocess.run(
        [sys.executable, "-m", "penstock.control", msgspec.json.encode(settings).decode()],
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
        env=os.environ | {"CANARY": address},
    )
    assert done.returncode == 1
    assert "storage.database_unavailable" in done.stderr
    assert PASSWORD not in done.stdout + done.stderr
