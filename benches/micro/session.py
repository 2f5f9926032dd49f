"""Micro benches of what the worker does a request: `python benches/micro/run.py`.

Prints the best of several repeats, in microseconds a call: the best is what the code costs, the
rest is what the machine was busy with.
"""

import asyncio
import random
import tempfile
import time
import timeit
from collections.abc import Callable
from pathlib import Path
from typing import cast

import msgspec
from benches.micro.http2 import unary_relay
from rich.console import Console
from rich.table import Table
from tests.fakes.worker_process import MemoryRecords

from penstock.access.peppers import Peppers
from penstock.access.rules import key_mac
from penstock.contract.journal import Close, Open, encode_record
from penstock.contract.limits import Lease, Limit, Metric, OwnerLimits
from penstock.contract.money import Budget, Hold, Price
from penstock.contract.node import (
    Granted,
    HoldsGranted,
    LimitsClock,
    Want,
    WantHolds,
    WorkerMessage,
)
from penstock.contract.snapshot import (
    Alias,
    Choice,
    Deployment,
    Endpoint,
    Key,
    Route,
    Snapshot,
    Upstream,
)
from penstock.contract.snapshot_store import (
    Delta,
    OwnerKind,
    SnapshotReader,
    SnapshotStore,
    owner_name,
    records_of,
)
from penstock.contract.usage import UsageEvent
from penstock.gateway.admit import admit
from penstock.gateway.attempts import Attempts
from penstock.gateway.authenticate import authenticate
from penstock.gateway.claim import Claim, Denial
from penstock.gateway.demand import Demand, read_demand
from penstock.gateway.dialects.members import Members
from penstock.gateway.dialects.openai import CHAT
from penstock.gateway.dialects.openai_usage import Usage
from penstock.gateway.limiter import Limiter
from penstock.gateway.offer import Catalog, Offer, Owner
from penstock.gateway.priced import Pricing
from penstock.gateway.quota import Quota, read_quota
from penstock.gateway.rehash import OldHashes
from penstock.gateway.retries import RetryBudget
from penstock.gateway.runtime import Runtime
from penstock.gateway.select import Turns
from penstock.gateway.stats import Stats
from penstock.gateway.till import Till
from penstock.gateway.tokens import Tokens
from penstock.gateway.worker import Worker
from penstock.kit.errors import Refusal
from penstock.kit.ids import EventIds

REPEATS = 7
REPEAT_S = 0.05
"""How long one repeat lasts, about."""

_PEPPER = b"p" * 64
_KEY = b"ps_live_0123456789ab_0123456789abcdefghijklmnopqrstuvABCDEF"
_EVENT = UsageEvent(
    event_id="019a0000-0000-7000-8000-000000000000",
    request_id="019a0000-0000-7000-8000-000000000000",
    organization="dev",
    project="playground",
    key_id="dev-key",
    model="emulated-70b",
    served_model="emulated-70b",
    upstream="emulator",
    operation="chat",
    is_stream=False,
    outcome="ok",
    status=200,
    error_code=None,
    usage_source="engine",
    input_tokens=19,
    output_tokens=22,
    cached_input_tokens=None,
    reasoning_output_tokens=None,
    attempt_count=1,
    started_at_ns=1_750_000_000_000_000_000,
    first_byte_at_ns=1_750_000_000_000_100_000,
    finished_at_ns=1_750_000_000_000_200_000,
)
_OPEN = Open(
    event_id=_EVENT.event_id,
    request_id=_EVENT.request_id,
    organization=_EVENT.organization,
    project=_EVENT.project,
    key_id=_EVENT.key_id,
    model=_EVENT.model,
    served_model=_EVENT.served_model,
    upstream=_EVENT.upstream,
    operation=_EVENT.operation,
    is_stream=_EVENT.is_stream,
    started_at_ns=_EVENT.started_at_ns,
    estimated_input_tokens=50,
)


def chat_body(size_bytes: int) -> bytes:
    frame = {"model": "emulated-70b", "messages": [{"role": "user", "content": ""}]}
    empty = msgspec.json.encode(frame)
    frame["messages"] = [{"role": "user", "content": "x" * (size_bytes - len(empty))}]
    return msgspec.json.encode(frame)


def _facts(size_bytes: int) -> Callable[[], object]:
    """Top-level members without the tree, and the body again from them."""
    body = chat_body(size_bytes)
    decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
    encode = msgspec.json.Encoder().encode
    return lambda: encode(decode(body))


def _snapshot() -> Snapshot:
    """Return a snapshot with an alias that leads to one place, and one with three choices."""
    names = ("one", "two", "three")
    return Snapshot(
        version=1,
        created_at_ns=1,
        keys=(Key("dev-key", key_mac(_PEPPER, _KEY), "dev", "playground"),),
        upstreams=tuple(
            Upstream(kind, kind, (Endpoint("http", "127.0.0.1", 1),))
            for kind in ("emulator", "vllm")
        ),
        deployments=(
            *(Deployment(name, "emulator", "emulated-70b") for name in names),
            Deployment("vllm", "vllm", "emulated-70b"),
        ),
        routes=(
            Route("one", (Choice("one"),)),
            Route("vllm", (Choice("vllm"),)),
            Route("three", tuple(Choice(name, 1 + index) for index, name in enumerate(names))),
        ),
        aliases=(
            Alias("emulated-70b", "one"),
            Alias("emulated-3x", "three"),
            Alias("emulated-vl", "vllm"),
        ),
    )


def _runtime(folder: Path) -> Runtime:
    snapshot = _snapshot()
    store = SnapshotStore(folder)
    puts = records_of(snapshot).items()
    store.apply(Delta(base_version=0, version=1, created_at_ns=1, puts=puts))
    store.close()
    return Runtime(
        SnapshotReader(folder),
        Peppers({1: _PEPPER}),
        tokens=Tokens(),
        turn=Turns(0.5).next,
        old_hashes=OldHashes(),
        now_s=time.time,
    )


def _admission(runtime: Runtime, body: bytes) -> Callable[[], object]:
    """A known key and an admitted chat: all that a request costs up to its OPEN."""
    authorization = b"Bearer " + _KEY

    def call() -> object:
        principal = authenticate(runtime, authorization, None, None, 1.0)
        if isinstance(principal, Refusal):
            return principal
        return admit(runtime, principal, CHAT, body)

    if isinstance(call(), Refusal):
        message = "the request that is measured is refused"
        raise ValueError(message)  # noqa: TRY004 - not a matter of types
    return call


def _attempts() -> Callable[[], object]:
    """All that it costs a request that it could be tried elsewhere."""
    budget = RetryBudget(time.monotonic)

    def call() -> object:
        attempts = Attempts(cast("Worker", None), 1)
        attempts.count += 1
        budget.requests += 1
        return attempts

    return call


class _Asker:
    """Whoever is let in by limits."""

    def let_in(self) -> None:
        """Go on."""

    def turn_away(self, denial: Denial) -> None:
        """Be refused, which is not what is measured."""
        raise AssertionError(denial)


def limit_ordinarily(records: MemoryRecords) -> None:
    """Limit requests, input, output and what is in flight, of key and project; and money."""
    metrics = (Metric.REQUESTS, Metric.INPUT_TOKENS, Metric.OUTPUT_TOKENS)
    for kind, owner in (("project", "playground"), ("key", "dev-key")):
        rules = [Limit(f"{kind}-{metric}", metric, 10**12) for metric in metrics]
        rules.append(Limit(f"{kind}-flying", Metric.CONCURRENCY, 10**6, window_s=0))
        name = owner_name(cast("OwnerKind", kind), "dev", owner)
        records.limits[name] = OwnerLimits(limits=tuple(rules))
    records.budgets[owner_name("organization", "dev")] = (Budget("budget", "EUR"),)
    records.prices["emulated-70b"] = (Price("EUR", 0, 10**9, 10**8, 10**10),)


def _limiter(loop: asyncio.AbstractEventLoop, sent: list[WorkerMessage]) -> Limiter:
    def send(message: WorkerMessage) -> bool:
        sent.append(message)
        return True

    def monotonic_ns() -> int:
        return time.monotonic_ns() // 10**12  # takes its time, and no lease ends

    limiter = Limiter(loop, monotonic_ns=monotonic_ns, name="n", send=send, stats=Stats())
    limiter.connected()
    limiter.take(LimitsClock(0))
    return limiter


def _fill(limiter: Limiter, sent: list[WorkerMessage]) -> None:
    """Give what was asked for, and plenty of it."""
    for message in sent:
        match message:
            case Want(take_id, asks):
                leases = tuple(Lease(10**12, 0, ask.bucket.limit) for ask in asks)
                limiter.take(Granted(take_id, leases))
            case WantHolds(take_id):
                limiter.take(HoldsGranted(take_id, (Hold("hold", 10**15, 10**18, 10**9),)))


def limits_case(body: bytes) -> Callable[[], object]:
    """All that limits add to a request: demand, claim, taking, header lines, settling."""
    records = MemoryRecords(_snapshot())
    limit_ordinarily(records)
    quota = cast("Quota", read_quota(records, _snapshot().keys[0]))
    catalog = Catalog(records, Tokens(), 1, Pricing(records, time.time), lambda _, name: name)
    offer = cast("Offer", catalog.make_offer("emulated-70b", Owner("dev", "playground")))
    members = msgspec.json.decode(body, type=Members)
    members["max_tokens"] = msgspec.Raw(b"100")
    sent: list[WorkerMessage] = []
    loop = asyncio.new_event_loop()
    limiter = _limiter(loop, sent)
    asker, usage = _Asker(), Usage(50, 22)

    def ask() -> tuple[Claim | Till, Demand]:
        demand = read_demand(members, CHAT, len(body), is_for_money=True)
        till = limiter.draw(quota, offer.first, demand, 1.0)
        if till is not None:
            return till, demand
        claim = limiter.claim(asker, quota, offer.first, demand, 1.0)
        limiter.admit(claim)
        claim.limit_lines()
        return claim, demand

    def call() -> object:
        taken, demand = ask()
        return limiter.settle(taken, demand, usage, was_sent=True, is_typical=True)

    ask()
    loop.run_until_complete(asyncio.sleep(0))  # now it asks
    _fill(limiter, sent)
    if not call():
        message = "the request that is measured is not let in"
        raise ValueError(message)
    return call


def _cases(folder: Path) -> dict[str, Callable[[], object]]:
    runtime = _runtime(folder)
    body = chat_body(200)
    ids = EventIds(time.time_ns, random.Random(1).getrandbits)
    close = Close(_EVENT)
    return {
        "HTTP/2 of a unary gRPC request, both legs": unary_relay(with_deadline=False),
        "the same with a deadline": unary_relay(with_deadline=True),
        "body facts: decode and encode, 200 B": _facts(200),
        "body facts: decode and encode, 64 KB": _facts(64 * 1024),
        "authenticate and admit, 200 B": _admission(runtime, body),
        "authenticate and admit, 200 B, three choices": _admission(
            runtime, body.replace(b"emulated-70b", b"emulated-3x")
        ),
        "the same, for vLLM: with what keeps organizations apart there": _admission(
            runtime, body.replace(b"emulated-70b", b"emulated-vl")
        ),
        "attempts: of a request that needs one": _attempts(),
        "limits: all rules of an ordinary plan, let in and settled": limits_case(body),
        "key_mac": lambda: key_mac(_PEPPER, _KEY),
        "journal: encode OPEN with checksum": lambda: encode_record(_OPEN),
        "journal: encode CLOSE with checksum": lambda: encode_record(close),
        "event id (UUIDv7)": ids.next,
    }


def measure_us(call: Callable[[], object]) -> float:
    """Return the microseconds of one call, the best of `REPEATS` repeats."""
    timer = timeit.Timer(call)
    # autorange ends at 0.2 s or more; a quarter of that a repeat is enough.
    calls, taken_s = timer.autorange()
    number = max(1, round(calls * REPEAT_S / taken_s))
    return min(timer.repeat(REPEATS, number)) / number * 1e6


def main() -> int:
    """Measure and print; return the exit code."""
    table = Table(title="Micro benches")
    table.add_column("")
    table.add_column("us a call", justify="right")
    with tempfile.TemporaryDirectory() as folder:
        for name, call in _cases(Path(folder)).items():
            table.add_row(name, f"{measure_us(call):.2f}")
    Console().print(table)
    return 0
