"""Limits and budgets on two nodes of two workers each, in real processes, whatever is killed.

The table of degraded modes in docs/explanation/limits.md names these tests.
"""

import asyncio
import contextlib
import os
import random
import signal
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import psutil
import pytest
from tests.fakes.budget_account import OWNERS, WORTH, Account, create_price, open_account, spend
from tests.fakes.limited_site import (
    NODES,
    Answer,
    Site,
    most_at_once,
    most_in_window,
    running_site,
    statuses,
)
from tests.fakes.postgresql_server import Cluster, run_cluster
from tests.fakes.production import create
from tests.fakes.redis_server import RedisServer, redis_server

from penstock.gateway.limits import PARK_S, SCARCE_HOLD_IDLE_MS
from penstock.limits.circuit import ABSENT_S

PRICE = Decimal(3)
"""Euros for a million output tokens."""
PARALLEL = 200
SEEDS = int(os.environ.get("SEEDS", "10"))
"""Budgets; `SEEDS=50 make test ARGS=tests/e2e/test_limits_hold.py` tries more of them."""
AWAY_S = float(os.environ.get("AWAY_S", "2"))
"""How long Redis is away; `AWAY_S=30 make test ARGS=tests/e2e/test_limits_hold.py` is patient."""
AT_ONCE = 3
"""Budgets that are spent at the same time."""
LIMIT = 40
"""Requests in a window."""
WINDOW_S = 1
LONGEST_S = 2.0
"""Of any answer, beyond what those take at the same time that no limit has to do with."""
EXHAUSTED = "limits:quota_exhausted"
PATIENCE_S = 90.0


@dataclass(frozen=True)
class Stage:
    """All that runs."""

    site: Site
    cluster: Cluster
    redis: RedisServer


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Two nodes that share limits by Redis, control on PostgreSQL, an alias with a price."""
    with run_cluster(is_durable=True) as cluster, redis_server(has_port=True) as redis:
        asyncio.run(cluster.server.prepare())
        dsn = cluster.server.role_dsn(asyncio.run(cluster.server.create()))
        agent = {"limits_url": f"redis://127.0.0.1:{redis.port}/0"}
        with running_site(tmp_path_factory.mktemp("limits"), dsn, agent=agent) as site:
            create_price(site, input_price="0", output_price=str(PRICE))
            yield Stage(site, cluster, redis)


@pytest.fixture
def site(stage: Stage) -> Site:
    """The nodes and their control plane."""
    return stage.site


# Budgets


def _draw_account(site: Site, seed: int, draw: random.Random) -> Account:
    owner = OWNERS[seed % len(OWNERS)]
    members: dict[str, Any] = {
        "lowers_cap": draw.random() < 0.5,
        "exhausted_status": draw.choice([429, 402]),
        "period": draw.choice(["day", "month", "once"]),
    }
    return open_account(
        site,
        f"seed {seed}",
        price=PRICE,
        tokens=draw.randint(20, 200),
        owner=owner,
        keys=1 if owner == "key" else 2,
        **members,
    )


async def _burst(site: Site, account: Account, draw: random.Random, count: int = PARALLEL) -> int:
    """Have callers come at once, look at each answer, and return how many were refused."""
    answers = await spend(site, account, draw, count)
    refused = account.budget["exhausted_status"]
    seen = statuses(answers)
    # 503: the database is slow today, and callers have lost their patience.
    assert set(seen) <= {200, refused, 503}, seen
    assert seen[200] <= WORTH or account.budget["lowers_cap"]
    assert account.known_cost <= account.amount
    for answer in answers:
        if answer.status == refused:
            assert answer.code == EXHAUSTED
            assert answer.headers["x-should-retry"] == "false"
    return seen[refused]


async def _spend_all(site: Site, account: Account, draw: random.Random) -> None:
    """Have callers come until nothing is left: what workers do not use goes back."""
    deadline = time.monotonic() + PATIENCE_S
    while account.affords_more:
        await spend(site, account, draw, 2)
        assert account.known_cost <= account.amount
        assert time.monotonic() < deadline, (account.known_cost, account.amount)


@pytest.mark.slow
async def test_200_at_once_never_overspend_a_budget_worth_10(site: Site) -> None:
    """For each seed: 200 requests at once on four workers spend all of a budget and no more."""
    draws = [random.Random(seed) for seed in range(SEEDS)]
    accounts = [_draw_account(site, seed, draw) for seed, draw in enumerate(draws)]
    await site.until_told()
    refused = 0
    for first in range(0, SEEDS, AT_ONCE):
        some = slice(first, first + AT_ONCE)
        bursts = zip(accounts[some], draws[some], strict=True)
        burst = (_burst(site, account, draw) for account, draw in bursts)
        refused += sum(await asyncio.gather(*burst))
    await asyncio.sleep(SCARCE_HOLD_IDLE_MS / 1_000 * 2)
    for account, draw in zip(accounts, draws, strict=True):
        await _spend_all(site, account, draw)
    deadline = time.monotonic() + PATIENCE_S
    while not refused:  # all who were too many may have lost their patience
        refused += await _burst(site, accounts[0], draws[0], 2)
        assert time.monotonic() < deadline
    for account in accounts:
        assert await asyncio.to_thread(account.wait_settled, site) == account.known_cost


@pytest.mark.parametrize("seed", range(2))
async def test_callers_who_leave_at_any_moment_strand_no_money(site: Site, seed: int) -> None:
    """Of callers who hang up anywhere in their request, all is settled and nothing stays held."""
    draw = random.Random(seed)
    account = open_account(site, f"leaving {seed}", price=PRICE, tokens=100, keys=2)
    await site.until_told()
    headers = {"x-emulator-ttft-ms": "50", "x-emulator-itl-ms": "1"}
    await spend(site, account, draw, PARALLEL, leaving=0.9, headers=headers)
    assert await asyncio.to_thread(account.wait_settled, site) <= account.amount


async def test_a_killed_worker_strands_no_money(site: Site) -> None:
    """What a worker held that is killed in the middle is settled or free, and all can be spent."""
    draw = random.Random(1)
    account = open_account(site, "killed worker", price=PRICE, tokens=100)
    await site.until_told()
    headers = {"x-emulator-ttft-ms": "300"}
    await spend(
        site,
        account,
        draw,
        PARALLEL,
        headers=headers,
        meanwhile=lambda: _kill_worker(site, 0),
    )
    account.expect_within(site)
    await asyncio.to_thread(account.wait_settled, site)
    # What engines did for the killed worker's callers was settled; what is left can be spent.
    while account.usage_cost(site) + account.price * account.tokens <= account.amount:
        await spend(site, account, draw, 2)
    assert await asyncio.to_thread(account.wait_settled, site) <= account.amount


async def test_a_killed_agent_loses_no_money(site: Site) -> None:
    """While a node's agent is killed and started anew, a budget is neither overspent nor lost."""
    draw = random.Random(2)
    account = open_account(site, "killed agent", price=PRICE, tokens=100, lowers_cap=False)
    await site.until_told()

    def restart() -> None:
        site.nodes[1].end("agent", is_hard=True)
        site.nodes[1].start_agent()

    await spend(site, account, draw, PARALLEL, meanwhile=restart)
    account.expect_within(site)
    await _spend_all(site, account, draw)
    assert await asyncio.to_thread(account.wait_settled, site) == account.amount


async def test_money_without_the_database_is_what_is_held(stage: Stage) -> None:
    """With the database away holds are spent, then callers get 503; when it is back all goes on."""
    site, draw = stage.site, random.Random(3)
    account = open_account(site, "no database", price=PRICE, tokens=100, lowers_cap=False)
    other = open_account(site, "no database, no hold", price=PRICE, tokens=100, lowers_cap=False)
    await site.until_told()
    first = await site.chat(account.secrets[0], max_tokens=account.tokens)
    account.answers.append(first)
    await asyncio.to_thread(stage.cluster.stop)
    try:
        answers = await site.chat_many(other.secrets, 8, max_tokens=other.tokens)
        assert statuses(answers) == {503: 8}
        assert {answer.code for answer in answers} == {"limits:unavailable"}
        assert {answer.headers["retry-after"] for answer in answers} == {"1"}
        answers = await site.chat_many(account.secrets, 20, max_tokens=account.tokens)
        account.answers += answers
        assert set(statuses(answers)) <= {200, 503}
        assert account.known_cost <= account.amount
    finally:
        await asyncio.to_thread(stage.cluster.start)
    for one in (account, other):
        await _spend_all(site, one, draw)
        assert await asyncio.to_thread(one.wait_settled, site) == one.amount


async def _chat_cheaply(site: Site, account: Account, count: int, *nodes: int) -> list[Answer]:
    """Send chats that cost far less than they hold: so their workers go on holding that."""
    headers = {"x-emulator-output-tokens": "1"}
    secrets = account.secrets
    return await site.chat_many(secrets, count, nodes=nodes, headers=headers, max_tokens=50)


async def _until_refused(site: Site, refusing: Account, spending: Account, node: int) -> None:
    """Wait until a node refuses what one budget bears on; the other one's requests go on."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        answers = await _chat_cheaply(site, refusing, 4, node)
        # Of several workers one may have used what it holds, for there is nobody to ask for more.
        others = await _chat_cheaply(site, spending, 16, node)
        assert statuses(others)[200] > 0, statuses(others)
        if statuses(answers) == {503: 4}:
            assert {answer.code for answer in answers} == {"limits:unavailable"}
            return
        assert set(statuses(answers)) <= {200, 503}
        assert time.monotonic() < deadline, statuses(answers)
        await asyncio.sleep(0.2)  # no faster: each chat uses a little of what is held


async def _until_served(site: Site, account: Account, *nodes: int) -> None:
    """Wait until all workers of nodes hold enough for many requests."""
    deadline = time.monotonic() + PATIENCE_S
    while (seen := statuses(await _chat_cheaply(site, account, 32, *nodes))) != {200: 32}:
        assert time.monotonic() < deadline, seen


async def test_money_that_is_away_is_refused_where_that_is_wanted(stage: Stage) -> None:
    """Without agent or database held money is spent of one budget, and of the other nothing."""
    site = stage.site
    refusing, spending = (
        open_account(site, when_away, price=PRICE * 10_000, tokens=100, when_away=when_away)
        for when_away in ("refuse", "spend_held")
    )
    await site.until_told()
    for account in refusing, spending:
        await _until_served(site, account, 1)
    site.nodes[1].end("agent", is_hard=True)
    await _until_refused(site, refusing, spending, 1)
    await asyncio.to_thread(site.nodes[1].start_agent)
    for account in refusing, spending:
        await _until_served(site, account, 0, 1)
    await asyncio.to_thread(stage.cluster.stop)
    try:
        await _until_refused(site, refusing, spending, 0)
    finally:
        await asyncio.to_thread(stage.cluster.start)
    await _until_served(site, refusing, 0, 1)


def _kill_worker(site: Site, node: int) -> None:
    """Kill one of a node's workers, whoever started it."""
    data = str(site.nodes[node].data)
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            line = " ".join(process.cmdline())
            if "penstock.gateway" in line and data in line:
                os.kill(process.pid, signal.SIGKILL)
                return
    pytest.fail("there is no worker to kill")


# Limits


def _limited_key(site: Site, name: str, *rules: dict[str, Any]) -> str:
    """Create a key with these rules and return its secret."""
    key = site.create_key(site.create_project(site.create_organization(name), "web"))
    create(site.admin, "/limits", key_id=key["id"], rules=list(rules))
    return str(key["secret"])


def _requests(limit: int, window_s: int = WINDOW_S) -> dict[str, Any]:
    return {"metric": "requests", "limit": limit, "window_s": window_s}


class Callers:
    """Who asks for far more than a limit, on all nodes, for a while."""

    def __init__(self, site: Site, secret: str) -> None:
        """See the class."""
        self._site = site
        self._secret = secret
        self.answers: list[Answer] = []
        self.waits_s: list[float] = []
        self.usual_waits_s: list[float] = []
        """What answers took at the same time that no limit has to do with."""

    async def run(self, seconds: float) -> None:
        """Ask."""
        end_s = time.monotonic() + seconds
        callers = (self._call(number % NODES, end_s) for number in range(16))
        others = (self._call_nobody(number % NODES, end_s) for number in range(2 * NODES))
        await asyncio.gather(*callers, *others)

    async def _call(self, node: int, end_s: float) -> None:
        while time.monotonic() < end_s:
            began_s = time.monotonic()
            self.answers.append(await self._site.chat(self._secret, node=node, max_tokens=1))
            self.waits_s.append(time.monotonic() - began_s)
            await asyncio.sleep(0.02)

    async def _call_nobody(self, node: int, end_s: float) -> None:
        while time.monotonic() < end_s:
            began_s = time.monotonic()
            await self._site.chat(self._secret, node=node, model="no-such-model")
            self.usual_waits_s.append(time.monotonic() - began_s)
            await asyncio.sleep(0.02)

    def most_in_window(self, *, since_s: float = 0.0) -> int:
        """Return the most that were let in within a window, of those that came later than that."""
        return most_in_window(self.answers, WINDOW_S, since_s=since_s)

    async def until_used(self, least: int, *, since_s: float = 0.0) -> None:
        """Ask until so many were let in within a window."""
        deadline = time.monotonic() + PATIENCE_S
        while (most := self.most_in_window(since_s=since_s)) < least:
            assert time.monotonic() < deadline, (most, statuses(self.answers))
            await self.run(2 * WINDOW_S)

    def expect_within(self, bound: float, *, decided_s: float = 0.0) -> None:
        """Fail if more were let in within a window, some waited, or nobody decided about many.

        Args:
            bound: Of what is let in.
            decided_s: From when on somebody can decide, seconds since the Unix epoch.
        """
        assert self.most_in_window() <= bound
        seen = statuses(self.answers)
        assert set(seen) <= {200, 429, 503}, seen
        seen = statuses([each for each in self.answers if each.ended_at_ms > decided_s * 1_000])
        assert seen[503] < seen.total() / 4, seen
        # On a busy machine, or in a worker that gets no core for a while, everybody waits.
        assert statistics.median(self.waits_s) < PARK_S + 2 * statistics.median(self.usual_waits_s)
        assert max(self.waits_s) < LONGEST_S + max(self.usual_waits_s)


async def test_a_label_puts_keys_under_a_limit(site: Site) -> None:
    """A moment after a key and somebody's key got a label its rule holds for both, and no other."""
    secrets = []
    labelled = []
    for name in ("labels", "others with labels"):
        organization = site.create_organization(name)
        rule = _requests(3, 3_600) | {"label": "team=search"}
        create(site.admin, "/limits", organization_id=organization, rules=[rule])
        place = {"organization_id": organization, "subject": "ann", "role": "developer"}
        member = create(site.admin, "/members", **place)
        project = site.create_project(organization, "two")
        own = {"name": "ann", "project_id": project, "member_id": member["id"]}
        key = site.create_key(site.create_project(organization, "one"))
        secrets += [key["secret"], create(site.admin, "/keys", **own)["secret"]]
        labelled += [f"/keys/{key['id']}", f"/members/{member['id']}"]
    await site.until_told()
    answers = await site.chat_many(secrets, 16, max_tokens=1)
    assert statuses(answers) == {200: 16}
    for path in labelled[:2]:
        changed = site.admin.patch(path, json={"labels": {"team": "search"}})
        assert changed.status_code == 200
    deadline = time.monotonic() + PATIENCE_S
    seen: Counter[int] = Counter()
    while seen[429] < 2:  # by when both are told of; what each was let in before counts nowhere
        answers = [await site.chat(secret, max_tokens=1) for secret in secrets[:2]]
        seen = statuses(answers)
        assert time.monotonic() < deadline
    assert statuses(await site.chat_many(secrets[2:], 16, max_tokens=1)) == {200: 16}


async def _until_shared(site: Site, limit: int, name: str) -> str:
    """Return a key's secret once nodes share its limit: each alone can use more than a share."""
    secret = _limited_key(site, name, _requests(limit))
    await site.until_told()
    deadline = time.monotonic() + 2 * PATIENCE_S
    shared: set[int] = set()
    while len(shared) < NODES:
        for node in range(NODES):
            answers = await site.chat_many([secret], limit + 4, nodes=[node], max_tokens=1)
            used = most_in_window(answers, WINDOW_S)
            assert used <= limit
            if used > 0.7 * limit:
                shared.add(node)
            await asyncio.sleep(WINDOW_S + 0.5)
        assert time.monotonic() < deadline, statuses(answers)
    return secret


async def test_nodes_share_a_limit(site: Site) -> None:
    """Of 200 at once on two nodes no more than the limit get in, and others hear when to come."""
    secret = await _until_shared(site, LIMIT, "shared")
    deadline = time.monotonic() + PATIENCE_S
    well_used = 0
    while well_used < 2:
        answers = await site.chat_many([secret], PARALLEL, max_tokens=1)
        seen = statuses(answers)
        assert set(seen) <= {200, 429, 503}, seen
        used = most_in_window(answers, WINDOW_S)
        assert used <= LIMIT
        # What one worker leased and did not use, others find a moment later; who waits too long,
        # on a busy machine, gets 503.
        well_used += used > LIMIT // 2
        assert time.monotonic() < deadline, seen
        refused = [answer for answer in answers if answer.status == 429]
        for answer in refused:
            assert answer.code == "limits:rate_exceeded"
            assert answer.headers["x-ratelimit-limit-requests"] == str(LIMIT)
            assert 1 <= int(answer.headers["retry-after"]) <= WINDOW_S + 2
        waits_s = [int(answer.headers["retry-after"]) for answer in refused]
        await asyncio.sleep(max(waits_s, default=WINDOW_S + 1))


async def test_places_come_back_whoever_leaves_or_is_killed(site: Site) -> None:
    """Requests in flight never pass their limit, and callers and workers that go free places."""
    limit, slow_s = 8, 0.7
    rule = {"metric": "concurrency", "limit": limit}
    secret = _limited_key(site, "flying", rule)
    await site.until_told()
    slow = {"x-emulator-ttft-ms": f"{slow_s * 1_000:.0f}"}
    draw = random.Random(4)

    async def one(number: int) -> Answer:
        return await site.chat(
            secret,
            node=number % NODES,
            headers=slow,
            leave_after_s=draw.uniform(0.0, 0.6) if number % 2 else None,
            max_tokens=1,
        )

    chats = [asyncio.ensure_future(one(number)) for number in range(60)]
    await asyncio.sleep(0.2)
    _kill_worker(site, 1)
    assert most_at_once(await asyncio.gather(*chats), slow_s) <= limit
    deadline = time.monotonic() + PATIENCE_S
    while True:
        answers = await site.chat_many([secret], 2 * limit, headers=slow, max_tokens=1)
        assert most_at_once(answers, slow_s) <= limit
        if statuses(answers) == {200: limit, 429: limit}:
            return
        assert time.monotonic() < deadline, statuses(answers)


async def test_a_killed_agent_and_worker_give_nothing_twice(site: Site) -> None:
    """While an agent and a worker are killed, no stretch of a window holds more than the limit."""
    limit = 60
    secret = await _until_shared(site, limit, "killed")
    callers = Callers(site, secret)
    running = asyncio.ensure_future(callers.run(6.0))
    await asyncio.sleep(0.5)
    _kill_worker(site, 0)
    await asyncio.sleep(0.5)
    site.nodes[1].end("agent", is_hard=True)
    await asyncio.sleep(0.5)
    await asyncio.to_thread(site.nodes[1].start_agent)
    await running
    await callers.until_used(limit // 2)
    assert callers.most_in_window() <= limit


@pytest.mark.parametrize("mode", ["refused", "hung"])
async def test_without_redis_each_node_gives_from_its_share(stage: Stage, mode: str) -> None:
    """Redis refused or hung: once L x (2 - 1/nodes) at most, then L, and nobody waits."""
    site, redis = stage.site, stage.redis
    secret = await _until_shared(site, LIMIT, f"redis {mode}")
    callers = Callers(site, secret)
    running = asyncio.ensure_future(callers.run(2 * WINDOW_S + AWAY_S + 2 * ABSENT_S))
    await asyncio.sleep(0.2)
    (redis.pause if mode == "hung" else redis.kill)()
    try:
        await asyncio.to_thread(_wait_alone, site)
        alone_s = time.time()
        await running
        # From the next window on it is the limit again, and the shares can be used.
        await callers.until_used(LIMIT // 2, since_s=alone_s + WINDOW_S + 0.5)
    finally:
        (redis.resume if mode == "hung" else redis.start)()
    callers.expect_within(LIMIT * (2 - 1 / NODES), decided_s=alone_s)
    assert callers.most_in_window(since_s=alone_s + WINDOW_S + 0.5) <= LIMIT


def _wait_alone(site: Site) -> None:
    """Wait until each node knows that it has to give from its own share."""
    for node in site.nodes:
        node.until(
            f"{node.url('metrics')}/health/ready",
            lambda answer: not answer.json()["limits"]["is_authority_up"],
        )


@pytest.mark.parametrize("mode", ["flushed", "cold"])
async def test_an_empty_redis_is_not_believed(stage: Stage, mode: str) -> None:
    """Redis flushed or started anew: once L x (2 - 1/nodes) at most, and nobody waits."""
    site, redis = stage.site, stage.redis
    secret = await _until_shared(site, LIMIT, f"redis {mode}")
    callers = Callers(site, secret)
    running = asyncio.ensure_future(callers.run(2 * WINDOW_S + 2.0))
    await asyncio.sleep(0.2)
    if mode == "flushed":
        redis.flush()
    else:
        redis.kill()
        redis.start()
    await running
    callers.expect_within(LIMIT * (2 - 1 / NODES))
