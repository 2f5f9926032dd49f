"""The how-to pages about brokers: with the settings that they name, usage goes that way."""

import json
import re
import ssl
from pathlib import Path
from typing import Any

import httpx
import msgspec
import nats
import trustme
from tests.fakes.agent_process import CONFIG, Node
from tests.fakes.control_server import serving_control
from tests.fakes.kafka_cluster import kafka_cluster
from tests.fakes.nats_server import nats_server
from tests.fakes.tls_proxy import tls_proxy

from penstock.contract.kafka import KafkaSettings
from penstock.contract.usage_messages import ANSWERS, READER, STREAM

PAGES = Path(__file__).parents[2] / "docs" / "how-to"
BLOCK = re.compile(r"^```json\n(.*?)^```", re.MULTILINE | re.DOTALL)
ROW = re.compile(r"^\| (`.*?`) \| .* \|$", re.MULTILINE)


def _blocks(page: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings of the control plane and those of the nodes."""
    control, node = BLOCK.findall((PAGES / page).read_text("utf-8"))
    return json.loads(control), json.loads(node)


async def _ship(
    folder: Path, template: Path, control_settings: dict[str, Any], node_settings: dict[str, Any]
) -> None:
    """Ship seven requests with these settings, and see that they are counted."""
    with serving_control(template, folder / "control", **control_settings) as control:
        data = folder / "node"
        (data / "secrets").mkdir(parents=True)
        token = (folder / "control" / "secrets" / "node_token").read_text()
        (data / "secrets" / "node_token").write_text(token)
        (data / "secrets" / "node_token").chmod(0o600)
        node = Node(data, control.url)
        node.config.write_text(CONFIG)
        try:
            await node.start("--closed=7", **node_settings)
            await node.until_metric("penstock_shipped_events_total", 7)
        finally:
            await node.clean_up()
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.get(
                f"{control.url}/api/v1/usage/totals?by=model",
                headers={"authorization": f"Bearer {control.token}"},
            )
        assert [group["requests"] for group in answer.json()["data"]] == [7]


async def test_the_settings_of_the_page_about_nats_work(
    sqlite_template: Path, tmp_path: Path
) -> None:
    """A node and a control plane that are set up as the page says ship usage over the broker."""
    password = tmp_path / "nats_password"
    blocks = _blocks("ship-usage-over-nats.md")
    with nats_server() as broker:
        password.write_text(broker.password)
        for block in blocks:
            assert block["nats_url"].startswith("nats://nats.example")
            assert block["nats_password"].startswith("file:/")
            block |= {"nats_url": broker.url, "nats_password": f"file:{password}"}
        await _ship(tmp_path, sqlite_template, *blocks)
        connection = await nats.connect(broker.url, token=broker.password)
        info = await connection.jetstream().consumer_info(STREAM, READER)
        await connection.close()
    assert info.delivered is not None
    assert info.delivered.consumer_seq >= 1


async def test_the_settings_of_the_page_about_kafka_work(
    sqlite_template: Path, tmp_path: Path
) -> None:
    """The same with Kafka, over TLS: each end looks at the certificate of who carries its usage."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    blocks = _blocks("ship-usage-over-kafka.md")
    with kafka_cluster(STREAM, ANSWERS) as cluster:
        with tls_proxy(context, cluster.port) as port:
            cluster.advertise(port)
            for block in blocks:
                assert block["kafka"].keys() == {"servers", "tls", "ca"}
                assert block["kafka"]["tls"]
                block["kafka"] |= {"servers": f"127.0.0.1:{port}", "ca": f"{tmp_path / 'ca.pem'}"}
            await _ship(tmp_path, sqlite_template, *blocks)
        cluster.advertise(cluster.port)
        assert cluster.committed(READER, STREAM) >= 1


def test_the_page_about_kafka_names_each_setting() -> None:
    """What can be set is in the page's table, and nothing else."""
    page = (PAGES / "ship-usage-over-kafka.md").read_text("utf-8")
    rows = page.partition("| Member | What |")[2].partition("\n\n")[0]
    named = {name for row in ROW.findall(rows) for name in re.findall(r"`(\w+)`", row)}
    assert named == {field.name for field in msgspec.structs.fields(KafkaSettings)}
