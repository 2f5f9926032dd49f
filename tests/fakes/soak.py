"""A node under many streams, of whose callers some leave: what stays behind when all is over."""

import asyncio
import json
import random
import re
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

import psutil
from tests.fakes.budget_account import MILLION, Account, create_price, open_account
from tests.fakes.limited_site import ALIAS, Site
from tests.fakes.production import Production

PRICE: Final = Decimal(3)
"""Euros for a million output tokens."""
GENEROUS: Final = 10**7
"""How many times the worth of a usual budget this one has: nobody is refused."""
_SAMPLE_S = 2.0
_SETTLED_S = 60.0
_GAUGE = r"^{name}(?:{{[^}}]*}})? (\S+)$"
_DONE = b"data: [DONE]"
_AGAIN = "HTTP/1.1 503"


def _hear_nothing(_: float) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What happens.

    Attributes:
        streams: Open at a time; each that ends is followed by another.
        seconds: New ones begin for so long.
        leaving: Which part of the callers hang up, at any moment of their request.
        tokens: Of each answer.
        gap_ms: Between tokens.
        seed: Decides who leaves when.
        tell: Called with the seconds so far, now and then.
    """

    streams: int
    seconds: float
    leaving: float = 0.2
    tokens: int = 20
    gap_ms: int = 100
    seed: int = 0
    tell: Callable[[float], None] = _hear_nothing


@dataclass(slots=True)
class Soaked:
    """What was seen, and what was left."""

    seconds: float
    """New streams began for so long: shorter than planned when SIGTERM came."""
    complete: int = 0
    left: int = 0
    postponed: int = 0
    """Times that somebody was told 503, as nobody could be asked in time, and came again."""
    failed: Counter[str] = field(default_factory=Counter)
    """Streams that ended in another way than their caller wanted, by how."""
    samples: list[tuple[float, list[float]]] = field(default_factory=list)
    """Seconds since the beginning, and MB of the agent and of each of its children."""
    asked: int = 0
    """Requests that the engine got."""
    events: int = 0
    """Requests in the usage store."""
    in_flight: float = -1
    connections: float = -1
    held: Decimal = Decimal(-1)
    settled: Decimal = Decimal(-1)
    cost: Decimal = Decimal(-1)
    """Of the usage that is stored."""

    def slope_mb_per_hour(self) -> float:
        """Return how fast memory grows in the second half: the median of all pairs' slopes.

        Source: Theil (1950), Sen (1968). One burst does not move it.
        """
        half = [(at_s, sum(mb)) for at_s, mb in self.samples[len(self.samples) // 2 :]]
        slopes = sorted(
            (later[1] - sooner[1]) / (later[0] - sooner[0])
            for number, sooner in enumerate(half)
            for later in half[number + 1 :]
        )
        return slopes[len(slopes) // 2] * 3_600 if slopes else 0.0

    def faults(self) -> list[str]:
        """Return what is not as it should be, but for memory."""
        wanted = {
            "streams that failed": (sum(self.failed.values()), 0),
            "requests in flight": (self.in_flight, 0),
            "money held": (self.held, 0),
            "settled for used": (self.settled, self.cost),
        }
        found = [
            f"{name}: {seen}, not {good}" for name, (seen, good) in wanted.items() if seen != good
        ]
        # Who leaves while the request is on its way has an event, and the engine heard nothing.
        if not self.asked <= self.events <= self.asked + self.left:
            found.append(f"usage events: {self.events} for {self.asked} requests")
        return found


class _Caller:
    """Keeps one stream open after another."""

    def __init__(self, port: int, account: Account, plan: Plan, draw: random.Random) -> None:
        """See the class."""
        self._port = port
        self._plan = plan
        self._draw = draw
        body = json.dumps(
            {
                "model": ALIAS,
                "messages": [{"role": "user", "content": "x"}],
                "stream": True,
                "max_tokens": plan.tokens,
            }
        )
        self._request = (
            "POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n"
            f"authorization: Bearer {account.secrets[0]}\r\n"
            f"x-emulator-itl-ms: {plan.gap_ms}\r\ncontent-length: {len(body)}\r\n\r\n{body}"
        ).encode()

    async def run(self, began_s: float, seen: Soaked) -> None:
        """Go on for as long as streams begin; the last one is seen to its end."""
        longest_s = self._plan.tokens * self._plan.gap_ms / 1_000
        await asyncio.sleep(self._draw.uniform(0, longest_s))  # they do not come all at once
        while time.monotonic() - began_s < seen.seconds:
            leaves = self._draw.random() < self._plan.leaving
            leave_s = self._draw.uniform(0, longest_s) if leaves else None
            try:
                async with asyncio.timeout(leave_s):
                    how = await self._stream()
            except TimeoutError:
                seen.left += 1
                continue
            if how.startswith(_AGAIN):
                seen.postponed += 1
                await asyncio.sleep(self._draw.uniform(1, 2))
            elif how:
                seen.failed[how] += 1
            else:
                seen.complete += 1

    async def _stream(self) -> str:
        """Return "" for a good stream, and else what was wrong."""
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError as error:
            return type(error).__name__
        try:
            writer.write(self._request)
            start = await reader.readline()
            if not start.startswith(b"HTTP/1.1 200 "):
                return start.decode("latin-1").strip() or "no answer"
            tail = b""
            while content := await reader.read(65_536):
                tail = (tail + content)[-64:]
        except OSError as error:
            return type(error).__name__
        finally:
            writer.transport.abort()
        return "" if _DONE in tail else "cut"


def _weigh(production: Production) -> list[float]:
    agent = psutil.Process(production.processes["agent"].pid)
    family = [agent, *agent.children(recursive=True)]
    return [process.memory_info().rss / 1e6 for process in family]


def _gauge(text: str, name: str) -> float:
    found = re.findall(_GAUGE.format(name=name), text, re.MULTILINE)
    assert found, f"there is no {name}"
    return sum(float(value) for value in found)


async def soak(site: Site, plan: Plan) -> Soaked:
    """Run a plan on the first node of a site, and look at what is left.

    SIGTERM ends it sooner, and as well: what was seen by then counts.

    Args:
        site: Its alias has no price yet.
        plan: What happens.
    """
    create_price(site, input_price="0", output_price=str(PRICE))
    account = open_account(site, "soak", price=PRICE * GENEROUS, tokens=plan.tokens)
    account.price = PRICE / MILLION
    await site.until_told()
    seen = Soaked(seconds=plan.seconds)
    node = site.nodes[0]
    asked_before = _asked(site)
    began_s = time.monotonic()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, _cut_short, began_s, seen)
    draw = random.Random(plan.seed)
    callers = [
        asyncio.ensure_future(_Caller(node.api_port, account, plan, draw).run(began_s, seen))
        for _ in range(plan.streams)
    ]
    done = asyncio.gather(*callers)
    while not done.done():
        await asyncio.wait([done], timeout=_SAMPLE_S)
        elapsed_s = time.monotonic() - began_s
        if elapsed_s < seen.seconds:
            seen.samples.append((elapsed_s, _weigh(node)))
        plan.tell(elapsed_s)
    await done
    await _settle(site, account, seen, asked_before)
    return seen


def _cut_short(began_s: float, seen: Soaked) -> None:
    seen.seconds = min(seen.seconds, time.monotonic() - began_s)


def _asked(site: Site) -> int:
    answer = site.admin.get(f"{site.control.url('engine')}/emulator/stats")
    return int(answer.json()["request_count"])


async def _settle(site: Site, account: Account, seen: Soaked, asked_before: int) -> None:
    """Wait until nothing is left, or for as long as that may take."""
    deadline = time.monotonic() + _SETTLED_S
    while True:
        metrics = site.admin.get(f"{site.nodes[0].url('metrics')}/metrics").text
        seen.in_flight = _gauge(metrics, "penstock_requests_in_flight")
        seen.connections = _gauge(metrics, "penstock_connections")
        seen.settled, seen.held = account.state(site)
        seen.cost = account.usage_cost(site)
        seen.events = _events(site, account)
        seen.asked = _asked(site) - asked_before
        if not [each for each in seen.faults() if "failed" not in each]:
            return
        if time.monotonic() > deadline:
            return
        await asyncio.sleep(0.5)


def _events(site: Site, account: Account) -> int:
    parameters = {"organization": account.organization, "by": "organization"}
    totals = site.admin.get("/usage/totals", params=parameters).json()["data"]
    return sum(int(total["requests"]) for total in totals)
