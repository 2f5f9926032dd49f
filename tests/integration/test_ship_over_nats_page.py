"""The how-to page about NATS: with the settings that it names, usage goes that way."""

import json
import re
from pathlib import Path
from typing import Any

import httpx
import nats
from tests.fakes.agent_process import CONFIG, Node
from tests.fakes.control_server import serving_control
from tests.fakes.nats_server import nats_server

from penstock.contract.usage_messages import READER, STREAM

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "ship-usage-over-nats.md"
BLOCK = re.compile(r"^```json\n(.*?)^```", re.MULTILINE | re.DOTALL)


def _settings(text: str, url: str, password: Path) -> dict[str, Any]:
    """Return the settings of a block, with our server for that of the page."""
    found: dict[str, Any] = json.loads(text)
    assert found["nats_url"].startswith("nats://nats.example")
    assert found["nats_password"].startswith("file:/")
    return found | {"nats_url": url, "nats_password": f"file:{password}"}


async def test_the_settings_of_the_page_work(sqlite_template: Path, tmp_path: Path) -> None:
    """A node and a control plane that are set up as the page says ship usage over the broker."""
    password = tmp_path / "nats_password"
    control_block, node_block = BLOCK.findall(PAGE.read_text("utf-8"))
    with nats_server() as broker:
        password.write_text(broker.password)
        settings = _settings(control_block, broker.url, password)
        with serving_control(sqlite_template, tmp_path / "control", **settings) as control:
            data = tmp_path / "node"
            (data / "secrets").mkdir(parents=True)
            token = (tmp_path / "control" / "secrets" / "node_token").read_text()
            (data / "secrets" / "node_token").write_text(token)
            (data / "secrets" / "node_token").chmod(0o600)
            node = Node(data, control.url)
            node.config.write_text(CONFIG)
            try:
                settings = _settings(node_block, broker.url, password)
                await node.start("--closed=7", **settings)
                await node.until_metric("penstock_shipped_events_total", 7)
            finally:
                await node.clean_up()
            async with httpx.AsyncClient(trust_env=False) as client:
                answer = await client.get(
                    f"{control.url}/api/v1/usage/totals?by=model",
                    headers={"authorization": f"Bearer {control.token}"},
                )
            assert [group["requests"] for group in answer.json()["data"]] == [7]
            connection = await nats.connect(broker.url, token=broker.password)
            info = await connection.jetstream().consumer_info(STREAM, READER)
            await connection.close()
            assert info.delivered is not None
            assert info.delivered.consumer_seq >= 1
