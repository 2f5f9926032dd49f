"""The agent as a real process, with stand-ins for its workers and for the usage store."""

import asyncio
import json
import os
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import msgspec
import pytest
from tests.fakes.agent_process import (
    CONFIG,
    WAIT_S,
    Caller,
    Node,
    Sink,
    kept_node,
    running_sink,
    until,
)
from tests.fakes.emulator_process import running_emulator
from tests.fakes.fake_worker import FakeJournal, make_open
from tests.fakes.plain_http import NO_TLS
from tests.fakes.ports import free_port

from penstock.access.peppers import read_peppers
from penstock.contract.node import (
    EngineLoads,
    Hello,
    NotReady,
    Stats,
    encode_message,
)
from penstock.node.layout import runtime_folder
from penstock.node.supervisor import ADOPTION_S, KILL_SLACK_S


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    """Return a usage store that answers."""
    async with running_sink() as sink:
        yield sink


@pytest.fixture
async def node(tmp_path: Path, sink: Sink) -> AsyncIterator[Node]:
    """Return a node that is not started."""
    async with kept_node(tmp_path, sink) as node:
        yield node


async def test_a_node_ships_what_its_workers_did(node: Node, sink: Sink) -> None:
    """Every closed request reaches the store once, requests that drain end as ok, and exit is 0."""
    await node.start("--closed=700", "--open=3", workers=2)
    await node.until_metric("penstock_workers", 2)
    await until(lambda: len(sink.events) == 1400, "closed requests are shipped")
    assert await node.stop() == 0, node.log()
    assert sink.outcomes() == {"ok": 1406}
    assert set(sink.deliveries.values()) == {1}
    token = (node.data / "secrets" / "node_token").read_text()
    assert sink.tokens == {f"Bearer {token}"}
    assert node.worker_pids() == []


async def test_keys_under_an_old_pepper_are_reported(node: Node, sink: Sink) -> None:
    """What workers say of old hashes reaches the control plane, also after it was away."""
    sink.is_away = True
    await node.start("--rehashed=7", workers=2)
    await until(lambda: "key hashes not reported" in node.log(), "the control plane is away")
    sink.is_away = False
    await until(lambda: sink.reports, "a report comes")
    pairs = {(bytes([n]) * 32, bytes([n + 1]) * 32) for n in range(7)}
    assert {pair for report in sink.reports for pair in report.pairs} == pairs
    assert {report.check for report in sink.reports} == {
        read_peppers(node.data / "secrets").check,
    }
    assert await node.stop() == 0, node.log()


async def test_what_was_held_for_a_dead_worker_is_free(node: Node, sink: Sink) -> None:
    """When all of a dead worker's events are stored the control plane is told, and not before."""
    sink.is_away = True
    await node.start("--closed=3", "--open=1")
    await node.until_metric("penstock_workers", 1)
    os.kill(node.worker_pids()[0], signal.SIGKILL)
    await until(lambda: "worker died" in node.log(), "the worker is buried")
    assert sink.frees == []
    sink.is_away = False
    await until(lambda: sink.frees, "its end is told")
    assert sink.outcomes()["interrupted"] == 1
    [free] = sink.frees
    assert (free.epoch, free.freed, free.is_over) == (1, (), True)
    assert free.producer == (node.data / "node" / "id").read_text().strip() + "/0"


async def test_a_second_start_ships_nothing_twice(node: Node, sink: Sink) -> None:
    """A restarted node goes on where it was and keeps its id, with larger epochs."""
    await node.start("--closed=10")
    await until(lambda: len(sink.events) == 10, "shipped")
    assert await node.stop() == 0
    first_id = (node.data / "node" / "id").read_text()
    await node.start("--closed=10")
    await until(lambda: len(sink.events) == 20, "shipped")
    assert await node.stop() == 0
    assert set(sink.deliveries.values()) == {1}
    assert (node.data / "node" / "id").read_text() == first_id
    assert (node.data / "node" / "epoch").read_text() == "2\n"


async def test_a_killed_worker_is_replaced_at_once(node: Node, sink: Sink) -> None:
    """After kill -9 another worker serves, and what was open ends as interrupted, once."""
    await node.start("--closed=5", "--open=4")
    await node.until_metric("penstock_workers", 1)
    (pid,) = node.worker_pids()
    os.kill(pid, signal.SIGKILL)
    await until(lambda: sink.outcomes()["interrupted"] == 4, "interrupted requests are shipped")
    await node.until_metric("penstock_worker_restarts_total", 1)
    await node.until_metric("penstock_workers", 1)
    await node.until_metric("penstock_requests_total", 10)
    await node.until_metric("penstock_requests_in_flight", 4)
    assert node.worker_pids() != [pid]
    assert await node.stop() == 0
    assert sink.outcomes() == {"ok": 14, "interrupted": 4}


async def test_a_worker_that_always_dies_is_restarted_less_and_less_often(node: Node) -> None:
    """A worker that cannot live is tried again with pauses, and the agent stays."""
    await node.start("--die-after-s=0.05")
    await until(lambda: "pause_s=1.0" in node.log(), "pauses grow")
    assert node.log().partition("pause_s=1.0")[0].count("worker started") <= 4
    assert await node.stop() == 0


async def test_workers_outlive_their_agent(node: Node, sink: Sink) -> None:
    """After kill -9 of the agent a new one adopts the living workers and ships on."""
    await node.start("--closed=3", "--open=1", workers=2)
    await node.until_metric("penstock_workers", 2)
    pids = node.worker_pids()
    assert len(pids) == 2
    node.signal(signal.SIGKILL)
    await node.wait()
    assert node.worker_pids() == pids
    await node.start("--closed=3", "--open=1", workers=2)
    await node.until_metric("penstock_workers", 2)
    assert node.worker_pids() == pids
    assert node.log().count("worker adopted") == 2
    assert "worker started" not in node.log()
    os.kill(pids[0], signal.SIGKILL)
    await until(lambda: "worker started" in node.log(), "an adopted worker is replaced")
    await node.until_metric("penstock_workers", 2)
    assert await node.stop() == 0
    assert sink.outcomes() == {"ok": 11, "interrupted": 1}
    assert node.worker_pids() == []


async def test_workers_with_other_settings_are_replaced(node: Node) -> None:
    """A new agent with another port lets old workers drain and starts its own."""
    await node.start("--open=1", port=18_001)
    await node.until_metric("penstock_workers", 1)
    pids = node.worker_pids()
    node.signal(signal.SIGKILL)
    await node.wait()
    await node.start("--open=1", port=18_002)
    await until(lambda: node.worker_pids() and node.worker_pids() != pids, "replaced")
    await node.until_metric("penstock_workers", 1)
    assert "worker sent away" in node.log()
    assert await node.stop() == 0


async def test_only_one_agent_runs_on_a_data_folder(node: Node, tmp_path: Path) -> None:
    """A second agent waits for a while, says who holds the folder, and fails."""
    await node.start()
    other = Node(tmp_path, node.control_url)
    other.log_path = tmp_path / "other.log"
    await other.spawn()
    assert await other.wait() == 1
    assert f"another agent (process {node.pid}) holds" in other.log()
    assert "err:node:start:data_in_use" in other.log()
    assert await node.stop() == 0


async def test_a_store_that_is_away_loses_nothing(node: Node, sink: Sink) -> None:
    """Events wait on the disk while the store is away, are counted, and arrive afterwards."""
    sink.is_away = True
    await node.start("--closed=600", "--open=2", ship_grace_s=1.0)
    segments = node.data / "journal" / "0-00000001"
    await until(lambda: len(list(segments.glob("*.journal"))) == 4, "the journal is written")
    # Each segment begins with a record of its own.
    await node.until_metric("penstock_journal_unshipped_records", 1202 + 4)
    await until(lambda: "usage not shipped" in node.log(), "it is tried")
    assert (await node.metric("penstock_ship_failures_total") or 0) > 0
    assert (await node.metric("penstock_ship_lag_seconds") or 0) > 0
    assert (await node.metric("penstock_journal_unshipped_bytes") or 0) > 100_000
    sink.is_away = False
    await until(lambda: len(sink.events) == 600, "shipped")
    await node.until_metric("penstock_journal_unshipped_records", 0)
    await node.until_metric("penstock_ship_lag_seconds", 0)
    sink.is_away = True
    assert await node.stop() == 0, "the agent gives up waiting"
    assert "usage left" in node.log()
    sink.is_away = False
    await node.start()
    await until(lambda: len(sink.events) == 602, "the rest is shipped")
    assert await node.stop() == 0


async def test_what_does_not_drain_is_killed_and_settled(node: Node, sink: Sink) -> None:
    """A worker that ignores its drain is killed after the grace and its requests end."""
    await node.start("--open=2", "--drain=ignore", drain_grace_s=0.2)
    await node.until_metric("penstock_workers", 1)
    assert await node.stop() == 0
    assert "worker killed" in node.log()
    assert sink.outcomes() == {"interrupted": 2}


async def test_an_agent_that_stood_still_kills_nobody(node: Node, sink: Sink) -> None:
    """When its worker stood still, too, as on a machine that is moved, that has its time to end."""
    await node.start("--open=2", drain_grace_s=3.0)
    await node.until_metric("penstock_workers", 1)
    (worker,) = node.worker_pids()
    os.kill(worker, signal.SIGSTOP)
    node.signal(signal.SIGTERM)
    await until(lambda: "agent stopping" in node.log(), "it stops")
    node.signal(signal.SIGSTOP)
    await asyncio.sleep(3.0 + KILL_SLACK_S + 0.5)
    node.signal(signal.SIGCONT)
    os.kill(worker, signal.SIGCONT)
    assert await node.wait() == 0, node.log()
    assert "worker killed" not in node.log()
    assert sink.outcomes() == {"ok": 2}


async def test_an_agent_that_stood_still_adopts_who_greeted_it(node: Node) -> None:
    """A worker that said Hello in time is no silent one."""
    await node.start()
    await node.until_metric("penstock_workers", 1)
    (worker,) = pids = node.worker_pids()
    os.kill(worker, signal.SIGSTOP)
    node.signal(signal.SIGKILL)
    await node.wait()
    await node.spawn()
    socket_path = runtime_folder(node.data) / "agent.sock"
    await until(lambda: _listens(socket_path), "the new agent listens")
    await asyncio.sleep(0.5)
    node.signal(signal.SIGSTOP)
    os.kill(worker, signal.SIGCONT)
    await asyncio.sleep(ADOPTION_S + 0.5)
    node.signal(signal.SIGCONT)
    await until(lambda: "worker adopted" in node.log(), "it is adopted")
    assert "workers silent" not in node.log()
    assert node.worker_pids() == pids
    assert await node.stop() == 0


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as knocking:
        return knocking.connect_ex(str(path)) == 0


async def test_a_good_reload_reaches_the_workers_and_a_bad_one_nobody(node: Node) -> None:
    """A changed file becomes a new version, a broken one a metric, the same content nothing."""
    await node.start()
    await until(lambda: "snapshot" in node.log() or node.worker_pids(), "runs")
    await node.until_metric("penstock_snapshot_version", 1)
    await node.until_metric("penstock_workers", 1)
    node.config.write_text(CONFIG + "aliases: [{name: a, route: r}]\n")
    await node.until_metric("penstock_config_rejected", 1)
    assert "routes: no" not in node.log()
    assert "aliases[0].route: no route is named" in node.log()
    assert await node.metric("penstock_snapshot_version") == 1
    node.config.write_text(CONFIG + "# a comment\n")
    node.signal(signal.SIGHUP)
    await node.until_metric("penstock_config_rejected", 0)
    assert await node.metric("penstock_snapshot_version") == 1
    node.config.write_text(CONFIG.replace("{name: dev}", "{name: dev}, {name: b}"))
    assert await node.metric("penstock_snapshot_version") == 1
    node.config.write_text(CONFIG + "upstreams: [{name: u, endpoints: ['http://127.0.0.1:1']}]\n")
    await node.until_metric("penstock_snapshot_version", 2)
    await until(lambda: "snapshot applied slot=0 version=2" in node.log(), "confirmed")
    assert await node.stop() == 0


async def test_a_signal_makes_workers_read_secrets_again(node: Node) -> None:
    """After SIGHUP workers apply the snapshot anew although nothing in the file has changed."""
    await node.start()
    await node.until_metric("penstock_workers", 1)
    assert "snapshot applied" not in node.log()
    node.signal(signal.SIGHUP)
    await until(lambda: "snapshot applied slot=0 version=1" in node.log(), "applied again")
    assert await node.stop() == 0


async def test_a_broken_file_at_start(node: Node) -> None:
    """Without a last good snapshot a broken file ends the agent, with one it serves on."""
    node.config.write_text("version: 2\n")
    await node.spawn()
    assert await node.wait() == 1
    assert "penstock.yaml:1:10: version: is a format" in node.log()
    node.config.write_text(CONFIG)
    await node.start()
    assert await node.stop() == 0
    node.config.write_text("version: 2\n")
    await node.start()
    assert await node.metric("penstock_config_rejected") == 1
    assert await node.metric("penstock_snapshot_version") == 1
    await node.until_metric("penstock_workers", 1)
    assert await node.stop() == 0


async def test_a_busy_metrics_port_is_said(node: Node) -> None:
    """An agent that cannot listen for metrics fails with the port, before it starts workers."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        await node.spawn(metrics_port=port)
        assert await node.wait() == 1
    assert f"cannot listen on 127.0.0.1:{port}" in node.log()
    assert "worker started" not in node.log()


async def test_strangers_on_the_socket_do_no_harm(node: Node) -> None:
    """Garbage, giants, silence and impossible workers on the socket leave the node as it was."""
    await node.start()
    await node.until_metric("penstock_workers", 1)
    path = runtime_folder(node.data) / "agent.sock"
    nobody = Hello(slot=0, epoch=99, pid=2**31 - 1, snapshot_version=1, is_draining=False)
    stats = Stats((), (), is_ready=True)
    for content in (
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\0\0\0\x04abcd",
        encode_message(stats),
        encode_message(nobody),
        encode_message(msgspec.structs.replace(nobody, pid=-1)),
        encode_message(msgspec.structs.replace(nobody, pid=2**40)),
    ):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(content)
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
    assert await node.metric("penstock_workers") == 1
    assert await node.stop() == 0
    assert not path.parent.exists()


async def test_health_and_unknown_paths(node: Node) -> None:
    """Liveness, readiness, unknown paths and wrong methods have their own answers."""
    await node.start()
    await node.until_metric("penstock_workers_ready", 1)
    base = f"http://127.0.0.1:{node.metrics_port}"
    async with httpx.AsyncClient(trust_env=False) as client:
        assert (await client.get(f"{base}/health/live")).status_code == 200
        answer = await client.get(f"{base}/health/ready")
        assert answer.status_code == 200
        readiness = answer.json()
        assert readiness["feed"].pop("age_s") >= 0
        assert readiness == {
            "workers": 1,
            "workers_ready": 1,
            "snapshot_version": 1,
            "is_config_rejected": False,
            "feed": {
                "is_lost": False,
                "lost_since": None,
                "position": {"seq": 0, "stamp": ""},
                "is_served": True,
            },
            "limits": {"is_authority_up": True, "nodes": 1},
            "discovery": {"failing": []},
        }
        assert (await client.get(f"{base}/")).text.startswith("# HELP")
        assert (await client.get(f"{base}/nothing")).status_code == 404
        assert (await client.post(f"{base}/metrics")).status_code == 405
        assert (await client.head(f"{base}/metrics")).text == ""
    assert await node.stop() == 0


async def test_what_a_worker_does_not_serve_from_yet_is_said(node: Node) -> None:
    """Readiness says whether every worker serves from what was published, one that hangs too."""
    await node.start(workers=2)
    await node.until_metric("penstock_workers", 2)
    url = f"http://127.0.0.1:{node.metrics_port}/health/ready"
    async with httpx.AsyncClient(trust_env=False, verify=NO_TLS) as client:

        async def until_said(*, is_served: bool, version: int) -> None:
            expected = (version, is_served)
            async with asyncio.timeout(WAIT_S):
                while True:
                    said = (await client.get(url)).json()
                    if (said["snapshot_version"], said["feed"]["is_served"]) == expected:
                        return
                    await asyncio.sleep(0.02)

        await until_said(is_served=True, version=1)
        os.kill(node.worker_pids()[0], signal.SIGSTOP)
        node.config.write_text(CONFIG + "upstreams: [{name: u, endpoints: ['http://[::1]:1']}]\n")
        await until_said(is_served=False, version=2)
        await until(lambda: "snapshot applied slot=" in node.log(), "the other serves from it")
        await until_said(is_served=False, version=2)
        os.kill(node.worker_pids()[0], signal.SIGCONT)
        await until_said(is_served=True, version=2)
    assert await node.stop() == 0


async def test_journals_of_dead_workers_are_found_at_start(node: Node, sink: Sink) -> None:
    """What workers of an earlier life left is shipped by the next agent without their help."""
    journal = FakeJournal(node.data / "journal", 0, 41)
    journal.write(make_open("left-open"))
    journal.die()
    await node.start()
    await until(lambda: "left-open" in sink.events, "shipped")
    assert (node.data / "node" / "epoch").read_text() == "42\n"
    assert await node.stop() == 0
    done = json.loads((node.data / "shipper" / "0-00000041.json").read_text())
    assert done["done_at_ns"] > 0


async def test_every_worker_is_told_of_credentials(node: Node) -> None:
    """Each worker is told behind its Hello which credentials are open, and so is the next one."""
    await node.start(workers=2)
    await node.until_metric("penstock_workers", 2)
    logs = [node.data / "logs" / f"worker-{slot}.log" for slot in (0, 1)]

    def told(times: int) -> bool:
        return all(log.read_text().count("credentials {} last=True") == times for log in logs)

    await until(lambda: told(1), "told")
    assert await node.metric("penstock_credentials_open") == 0
    for pid in node.worker_pids():
        os.kill(pid, signal.SIGKILL)
    await until(lambda: told(2), "told again")
    assert await node.stop() == 0


async def test_every_worker_is_told_of_endpoints_that_are_away(node: Node) -> None:
    """An endpoint that cannot be reached is in the metrics, and workers that come hear of it."""
    url = f"http://127.0.0.1:{free_port()}"
    upstream = f'upstreams: [{{name: gpu, provider: vllm, endpoints: ["{url}"]}}]\n'
    node.config.write_text(CONFIG + upstream)
    await node.start()
    await node.until_metric("penstock_endpoint_ready", 0)
    caller = Caller(node)
    await caller.connect(epoch=7)
    assert (await caller.hear(NotReady)).endpoints == (("gpu", url),)
    await caller.end()
    assert await node.stop() == 0, node.log()


async def test_every_worker_is_told_how_busy_engines_are(node: Node) -> None:
    """What two engines say is in the metrics and told to workers that come, until it is over."""
    options = ("--kind", "vllm", "--batch", "4")
    with (
        running_emulator("m", options=options) as one,
        running_emulator("m", options=options) as two,
    ):
        upstream = f'upstreams: [{{name: gpu, provider: vllm, endpoints: ["{one}", "{two}"]}}]\n'
        node.config.write_text(CONFIG + upstream)
        await node.start(engine_load_s=0.2)
        await node.until_metric("penstock_endpoint_strain", 0)
        caller = Caller(node)
        await caller.connect(epoch=7)
        while len((told := await caller.hear(EngineLoads)).endpoints) < len((one, two)):
            pass
        assert {row[1:] for row in told.endpoints} == {(one, 0, 0, 0), (two, 0, 0, 0)}
        await caller.end()
    await node.until_metric("penstock_endpoint_strain", None)
    assert await node.stop() == 0, node.log()


async def test_a_bad_kek_setting_is_said(node: Node) -> None:
    """An agent whose setting names no keeper fails with what to write."""
    await node.spawn(kek="penstock/transit")
    assert await node.wait() == 1
    assert "write file:PATH, vault:MOUNT/KEY or aws:KEY-ID-OR-ARN" in node.log()
