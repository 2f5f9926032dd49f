"""A node that follows the feed of a large control plane, from an empty disk and from a full one."""

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
from benches.load.processes import forget_file
from benches.scale.filling import Filling, fill
from rich.console import Console
from tests.fakes.postgresql_server import run_cluster
from tests.fakes.production import Production

PATIENCE_S = 1_200.0


@dataclass(frozen=True, slots=True)
class Fed:
    """What a node had of the feed, and when."""

    path: Path
    """The snapshot store that came of it."""
    fill_s: float
    """Until the database was filled."""
    from_nothing_s: float
    """From the agent's start on an empty disk until a key of the feed is served."""
    from_disk_s: float
    """The same of an agent that finds the store on its disk, nothing of it in memory."""


def feed_node(folder: Path, pepper: bytes, filling: Filling, console: Console) -> Fed:
    """Fill a database, let a node follow it from nothing, and start the node once more.

    Args:
        folder: The node's and the control plane's data folder.
        pepper: What the filling's hashes were made with.
        filling: What the database has.
        console: Takes the progress.
    """
    (folder / "secrets").mkdir(parents=True)
    (folder / "secrets" / "pepper").write_bytes(pepper)
    with run_cluster(is_durable=True) as cluster:
        asyncio.run(cluster.server.prepare())
        name = asyncio.run(cluster.server.create())
        console.print(f"filling PostgreSQL: {filling.keys:,} keys, {filling.aliases:,} routes")
        began_s = time.monotonic()
        asyncio.run(fill(cluster.server.superuser_dsn(name), filling))
        fill_s = time.monotonic() - began_s
        production = Production(folder, cluster.server.role_dsn(name), workers=1)
        try:
            production.start_control()
            console.print("a node follows from nothing")
            from_nothing_s = _start_node(production, filling)
            production.end("agent")
            forget_file(folder / "node" / "snapshot" / "data.mdb")
            from_disk_s = _start_node(production, filling)
        finally:
            production.stop()
    return Fed(folder / "node" / "snapshot", fill_s, from_nothing_s, from_disk_s)


def _start_node(production: Production, filling: Filling) -> float:
    """Return the seconds until the last key of the sample may see the last model."""
    began_s = time.monotonic()
    production.start_agent()
    headers = {"authorization": f"Bearer {filling.sample[-1][0]}"}
    url = f"{production.url('api')}/v1/models/model-{filling.aliases - 1}"
    with httpx.Client(headers=headers, trust_env=False) as client:
        while not client.get(url).is_success:
            if time.monotonic() > began_s + PATIENCE_S:
                message = production.log("agent")[-2_000:]
                raise TimeoutError(message)
            time.sleep(0.05)
    return time.monotonic() - began_s
