"""How much usage a control plane takes in, to the ledger, for how long and with which memory."""

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
from benches.usage.money import EPOCH
from benches.usage.plane import Kind, Plane, Usage, running_plane

from penstock.contract.usage import UsageBatch, encode_batch

BATCH = 500
PRODUCERS = 3
"""Nodes that ship at the same time, each its next batch when the last is acknowledged."""
_NAMES = [f"bench-{number}/0" for number in range(PRODUCERS)]
_WARM_UP_S = 5.0


@dataclass(frozen=True, slots=True)
class Throughput:
    """What was taken in."""

    kind: Kind
    events: int
    seconds: float
    slowest_5s: float
    """Events a second in the slowest five seconds."""
    cpu_us: float
    """Of the control plane, for an event."""
    rss_mb_start: float
    """After the warm-up."""
    rss_mb_end: float

    @property
    def per_second(self) -> float:
        """Events a second."""
        return self.events / self.seconds


def measure(kind: Kind, folder: Path, seconds: float, *, has_budgets: bool = False) -> Throughput:
    """Ship as fast as it goes, after a warm-up; off hard budgets and wallets if there are any."""
    with running_plane(kind, folder, paying=_NAMES if has_budgets else ()) as plane:
        return asyncio.run(_measure(kind, plane, seconds))


async def _measure(kind: Kind, plane: Plane, seconds: float) -> Throughput:
    stored: list[tuple[float, int]] = []
    stop_s = time.monotonic() + _WARM_UP_S + seconds
    work = [asyncio.create_task(_ship(plane, name, stop_s, stored)) for name in _NAMES]
    await asyncio.sleep(_WARM_UP_S)
    start_s, cpu_s, rss_start = time.monotonic(), plane.cpu_s(), plane.rss_mb()
    await asyncio.sleep(seconds - 0.5)
    end_s, cpu_s, rss_end = time.monotonic(), plane.cpu_s() - cpu_s, plane.rss_mb()
    await asyncio.gather(*work)
    counted = [(at_s - start_s, count) for at_s, count in stored if start_s <= at_s < end_s]
    events = sum(count for _, count in counted)
    fives = [0] * int((end_s - start_s) // 5)
    for at_s, count in counted:
        if int(at_s // 5) < len(fives):
            fives[int(at_s // 5)] += count
    return Throughput(
        kind,
        events,
        end_s - start_s,
        min(fives, default=0) / 5,
        cpu_s * 1e6 / max(events, 1),
        rss_start,
        rss_end,
    )


async def _ship(
    plane: Plane, producer: str, stop_s: float, stored: list[tuple[float, int]]
) -> None:
    usage = Usage(plane.holds.get(producer))
    token = plane.token_path.read_text()
    headers = {"Authorization": f"Bearer {token}"}
    place = 0
    async with httpx.AsyncClient(base_url=plane.url, headers=headers, timeout=60) as client:
        while time.monotonic() < stop_s:
            events = tuple(usage.make() for _ in range(BATCH))
            end = place + BATCH
            batch = UsageBatch(
                producer, EPOCH, events, segment=1, offset=end, from_segment=1 if place else 0,
                from_offset=place,
            )  # fmt: skip
            answer = await client.post("/node/v1/usage", content=encode_batch(batch))
            answer.raise_for_status()
            stored.append((time.monotonic(), answer.json()["stored"]))
            place = end
