"""The configuration feed: whoever follows it, however, ends with the same records."""

import asyncio
import contextlib
import dataclasses
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from tests.fakes.followers import Ask, Follower, asking
from tests.fakes.organizations import ALL, NOW_US, OPERATOR, PEPPERS, SECOND_US, actor

from penstock.access import rotation
from penstock.access import service as access
from penstock.access.model import NewKey
from penstock.access.peppers import Peppers
from penstock.access.rehash import record_reported
from penstock.audit.model import Actor
from penstock.catalog import aliases, deployments, routes, upstreams
from penstock.catalog.objects import (
    Choice,
    NewAlias,
    NewDeployment,
    NewGrant,
    NewRoute,
    NewUpstream,
)
from penstock.catalog.tables import Upstreams
from penstock.contract.feed import MAX_RECORDS, Position, make_page, read_page
from penstock.contract.snapshot import SnapshotFormatError
from penstock.kit.errors import PenstockError
from penstock.ledger.credits import set_terms
from penstock.ledger.model import Unpriced
from penstock.limits import budgets, owner_limits, plans
from penstock.limits.budget_model import NewBudget
from penstock.limits.model import KeptRules, NewLimits, NewPlan
from penstock.limits.owners import find_owner
from penstock.storage.database import Database
from penstock.storage.sessions import WriteSession
from penstock.tenancy import service as tenancy
from penstock.tenancy.model import OwnerChanges

Delete = Callable[[WriteSession, Actor, str], Awaitable[None]]


@pytest.fixture
async def ask(database: Database) -> AsyncIterator[Ask]:
    """Return what asks the feed of a database."""
    async with asking(database) as ask:
        yield ask


BOTH = Peppers({1: PEPPERS.values[1], 2: b"pepper-of-these-tests-number-two"})


class World:
    """Changes organizations, projects and keys at random."""

    def __init__(self, database: Database, chance: random.Random) -> None:
        """Start with nothing."""
        self._database = database
        self._chance = chance
        self._now_us = NOW_US
        self._organizations: list[str] = []
        self._projects: list[str] = []
        self._keys: list[str] = []
        self._texts: list[str] = []
        self._regions: list[str] | None = None
        self._limited: dict[str, str] = {}
        self._plan: str | None = None
        self._budgets: dict[str, str] = {}
        self._billed: set[str] = set()
        self._catalog: dict[str, list[str]] = {
            kind: [] for kind in ("upstreams", "deployments", "routes", "aliases", "grants")
        }

    async def change(self) -> None:
        """Make one change, as a service makes it."""
        self._now_us += SECOND_US
        choices = [self._create_organization]
        if self._organizations:
            choices += [self._create_project, self._suspend, self._resume]
        if self._projects:
            choices += [self._create_key] * 3
        choices.append(self._create_path)
        if self._catalog["aliases"]:
            choices += [self._change_catalog, self._change_catalog, self._delete_catalog]
        if self._projects and self._catalog["aliases"]:
            choices += [self._grant, self._grant, self._restrict]
        if self._projects:
            choices += [self._limit] * 3 + [self._budget] * 2 + [self._bill]
        if self._keys:
            choices += [self._rotate, self._disable, self._enable, self._revoke, self._rehash]
        await self._do(self._chance.choice(choices))

    async def begin(self) -> AsyncIterator[None]:
        """Make one change of each sort that brings records, one after the other."""
        for step in (
            self._create_organization,
            self._create_project,
            self._create_key,
            self._create_path,
            self._grant,
            self._restrict,
            self._limit,
            self._budget,
            self._bill,
            self._suspend,
        ):
            await self._do(step)
            yield

    async def _do(self, step: Callable[[WriteSession], Awaitable[None]]) -> None:
        # A refusal changes nothing, which followers must see as well.
        with contextlib.suppress(PenstockError):
            async with self._database.write(ALL) as session:
                await step(session)

    async def _create_organization(self, session: WriteSession) -> None:
        name = f"org {len(self._organizations)}"
        made = await tenancy.create_organization(session, actor(self._now_us), name)
        self._organizations.append(made.id)

    async def _create_project(self, session: WriteSession) -> None:
        owner = self._chance.choice(self._organizations)
        name = f"project {len(self._projects)}"
        made = await tenancy.create_project(session, actor(self._now_us), owner, name)
        self._projects.append(made.id)

    async def _create_key(self, session: WriteSession) -> None:
        new = NewKey(name=f"key {len(self._keys)}", allowed_cidrs=["10.0.0.0/8"])
        made = await access.create_key(
            session,
            actor(self._now_us),
            OPERATOR,
            PEPPERS,
            project_id=self._chance.choice(self._projects),
            new=new,
        )
        self._keys.append(made.key.id)
        self._texts.append(made.text)

    async def _rehash(self, session: WriteSession) -> None:
        macs = [BOTH.macs(text) for text in self._chance.sample(self._texts, 1)]
        pairs = [(one[1], one[2]) for one in macs]
        await record_reported(session, BOTH, pairs, self._now_us)

    async def _suspend(self, session: WriteSession) -> None:
        await tenancy.suspend_organization(
            session, actor(self._now_us), self._chance.choice(self._organizations)
        )

    async def _resume(self, session: WriteSession) -> None:
        await tenancy.resume_organization(
            session, actor(self._now_us), self._chance.choice(self._organizations)
        )

    async def _rotate(self, session: WriteSession) -> None:
        await rotation.rotate_key(
            session,
            actor(self._now_us),
            OPERATOR,
            PEPPERS,
            key_id=self._chance.choice(self._keys),
            grace_s=60,
        )

    async def _disable(self, session: WriteSession) -> None:
        await access.disable_key(session, actor(self._now_us), self._chance.choice(self._keys))

    async def _enable(self, session: WriteSession) -> None:
        await access.enable_key(
            session, actor(self._now_us), OPERATOR, self._chance.choice(self._keys)
        )

    async def _revoke(self, session: WriteSession) -> None:
        await access.revoke_key(session, actor(self._now_us), self._chance.choice(self._keys))

    async def _create_path(self, session: WriteSession) -> None:
        name, who = f"fast-{len(self._catalog['aliases'])}", actor(self._now_us)
        upstream = await upstreams.create_upstream(
            session, who, NewUpstream(name=name, endpoints=["http://127.0.0.1:8000"])
        )
        deployment = await deployments.create_deployment(
            session, who, NewDeployment(name=name, upstream_id=upstream.id, model="served")
        )
        route = await routes.create_route(
            session, who, NewRoute(name=name, choices=[Choice(deployment_id=deployment.id)])
        )
        alias = await aliases.create_alias(session, who, NewAlias(name=name, route_id=route.id))
        for kind, made in (
            ("upstreams", upstream.id),
            ("deployments", deployment.id),
            ("routes", route.id),
            ("aliases", alias.id),
        ):
            self._catalog[kind].append(made)

    async def _change_catalog(self, session: WriteSession) -> None:
        who, chance = actor(self._now_us), self._chance
        one = {kind: chance.choice(ids) for kind, ids in self._catalog.items() if ids}
        is_so = chance.random() < 0.5
        match chance.choice(["upstreams", "deployments", "routes", "aliases"]):
            case "upstreams":
                await upstreams.update_upstream(
                    session, who, one["upstreams"], {"is_disabled": is_so, "region": "eu-de"}
                )
            case "deployments":
                await deployments.update_deployment(
                    session, who, one["deployments"], {"upstream_id": one["upstreams"]}
                )
            case "routes":
                choices = [Choice(deployment_id=one["deployments"], weight=chance.randrange(9))]
                fallback_id = chance.choice(self._catalog["routes"])
                await routes.update_route(
                    session,
                    who,
                    one["routes"],
                    {"choices": choices, "fallback_id": fallback_id if is_so else None},
                )
            case _:
                await aliases.update_alias(
                    session, who, one["aliases"], {"is_open": is_so, "route_id": one["routes"]}
                )

    async def _delete_catalog(self, session: WriteSession) -> None:
        who = actor(self._now_us)
        kind = self._chance.choice([kind for kind, ids in self._catalog.items() if ids])
        deletions: dict[str, Delete] = {
            "upstreams": upstreams.delete_upstream,
            "deployments": deployments.delete_deployment,
            "routes": routes.delete_route,
            "aliases": aliases.delete_alias,
            "grants": aliases.delete_grant,
        }
        object_id = self._chance.choice(self._catalog[kind])
        await deletions[kind](session, who, object_id)

    async def _grant(self, session: WriteSession) -> None:
        project = await tenancy.get_project(session, self._chance.choice(self._projects))
        new = NewGrant(
            alias_id=self._chance.choice(self._catalog["aliases"]),
            organization_id=project.organization_id,
            project_id=project.id if self._chance.random() < 0.5 else None,
        )
        made = await aliases.create_grant(session, actor(self._now_us), new)
        self._catalog["grants"].append(made.id)

    async def _restrict(self, session: WriteSession) -> None:
        # The first time, and every other one.
        self._regions = [] if self._regions is None else None
        changes: OwnerChanges = {"allowed_regions": self._regions}
        who = actor(self._now_us)
        if self._chance.random() < 0.5:
            await tenancy.update_project(session, who, self._chance.choice(self._projects), changes)
        else:
            await tenancy.update_organization(
                session, who, self._chance.choice(self._organizations), changes
            )

    async def _limit(self, session: WriteSession) -> None:
        who, limit = actor(self._now_us), self._chance.randrange(1, 9)
        rules: KeptRules = [{"metric": "requests", "limit": limit}]
        if self._plan is None:
            self._plan = (await plans.create_plan(session, who, NewPlan(name="gold"))).id
        named = self._chance.choice(
            [{"project_id": one} for one in self._projects]
            + [{"key_id": one} for one in self._keys]
        )
        (owner_id,) = named.values()
        limits_id = self._limited.pop(owner_id, None)
        if limits_id is None:
            owner = await find_owner(session, named)
            new = NewLimits(owner=owner, plan_id=self._plan, rules=rules)
            self._limited[owner_id] = (await owner_limits.create_limits(session, who, new)).id
        elif limit < 5:
            await owner_limits.delete_limits(session, who, limits_id)
        else:
            await owner_limits.update_limits(session, who, limits_id, {"rules": rules})
            await plans.update_plan(session, who, self._plan, {"rules": rules})
            self._limited[owner_id] = limits_id

    async def _bill(self, session: WriteSession) -> None:
        owner = self._chance.choice(self._organizations)
        unpriced: Unpriced = self._chance.choice(("refuse", "allow")) if self._billed else "refuse"
        self._billed.add(owner)
        currency = self._chance.choice(("EUR", "USD"))
        await set_terms(
            session,
            actor(self._now_us),
            owner,
            currency=currency,
            mode="postpaid",
            unpriced=unpriced,
        )

    async def _budget(self, session: WriteSession) -> None:
        who = actor(self._now_us)
        project = self._chance.choice(self._projects)
        budget_id = self._budgets.pop(project, None)
        if budget_id is None:
            owner = await find_owner(session, {"project_id": project})
            new = NewBudget(owner=owner, currency="EUR", amount=5, is_hard=True)
            self._budgets[project] = (await budgets.create_budget(session, who, new)).id
        elif self._chance.random() < 0.5:
            await budgets.delete_budget(session, who, budget_id)
        else:
            is_hard = self._chance.random() < 0.5
            await budgets.update_budget(session, who, budget_id, {"is_hard": is_hard})
            self._budgets[project] = budget_id


@pytest.mark.parametrize("seed", range(4))
async def test_all_followers_end_alike(
    database: Database, ask: Ask, tmp_path: Path, seed: int
) -> None:
    """Following each change, some of them, or all at the end leads to the same records."""
    chance = random.Random(seed)
    world = World(database, chance)
    every, some, late = (Follower(tmp_path / name, ask) for name in ("every", "some", "late"))
    async for _ in world.begin():
        await every.follow()
    assert {name[:1] for name in every.records()} == {
        b"a",
        b"b",
        b"d",
        b"g",
        b"k",
        b"l",
        b"n",
        b"p",
        b"r",
        b"s",
        b"t",
        b"u",
    }
    for _ in range(60):
        await world.change()
        await every.follow()
        if chance.random() < 0.2:
            await some.follow()
    await some.follow()
    await late.follow()
    assert every.records() == some.records() == late.records()
    assert every.fulls == late.fulls == 1


async def test_what_changes_between_pages_comes_behind_them(
    database: Database, ask: Ask, tmp_path: Path
) -> None:
    """Pages are bounded, and changes made while a node reads them are not lost to it."""
    upstream = NewUpstream(name="bulk", endpoints=["http://127.0.0.1:8000"])
    async with database.write(ALL) as session:
        first = await upstreams.create_upstream(session, actor(), upstream)
        row = {name.removesuffix("_us"): value for name, value in dataclasses.asdict(first).items()}
        await session.insert(
            Upstreams, *(row | {"id": f"ups_{n:05}", "name": f"bulk-{n}"} for n in range(6_000))
        )
    follower, late = Follower(tmp_path / "node", ask), Follower(tmp_path / "late", ask)
    page = await ask(Position(0, ""))
    assert page is not None
    pages = [page]
    async with database.write(ALL) as session:
        await upstreams.delete_upstream(session, actor(), "ups_00000")
        await upstreams.update_upstream(session, actor(), "ups_00001", {"is_disabled": True})
        await upstreams.delete_upstream(session, actor(), "ups_05999")
        await upstreams.create_upstream(session, actor(), dataclasses.replace(upstream, name="new"))
    while pages[-1].next_after:
        more = await ask(page.position, pages[-1].next_after)
        assert more is not None
        pages.append(more)
    assert len(page.puts) == MAX_RECORDS
    assert all(len(one.puts) <= MAX_RECORDS for one in pages)
    follower.publisher.publish_feed(
        page.position.stamp,
        page.position.seq,
        {name: value for one in pages for name, value in one.puts},
        (),
        is_full=True,
    )
    await follower.follow()
    await late.follow()
    assert follower.fulls == 0
    assert follower.records() == late.records()
    assert len(late.records()) == 6_000 + 2 - 3


async def test_nothing_new_is_no_content(database: Database, ask: Ask, tmp_path: Path) -> None:
    """A node that has everything is told so, and is not sent everything again."""
    follower = Follower(tmp_path / "node", ask)
    await follower.follow()
    assert follower.publisher.cursor == ("empty", 0)
    assert await ask(Position(0, "empty")) is None
    await World(database, random.Random(1)).change()
    await follower.follow()
    stamp, seq = follower.publisher.cursor
    assert await ask(Position(seq, stamp)) is None


async def test_an_unknown_position_is_answered_with_everything(
    database: Database, ask: Ask
) -> None:
    """A position of another, or restored, database means nothing here."""
    world = World(database, random.Random(2))
    for _ in range(10):
        await world.change()
    for position in (Position(3, "1"), Position(10**9, "1"), Position(0, "")):
        page = await ask(position)
        assert page is not None
        assert page.is_full


async def test_a_waiting_question_is_answered_by_a_change(database: Database, ask: Ask) -> None:
    """An open question ends as soon as something changes."""
    world = World(database, random.Random(3))
    await world.change()
    page = await ask(Position(0, ""))
    assert page is not None
    waiting = asyncio.ensure_future(ask(page.position, wait_s=20))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await world.change()
    changed = await asyncio.wait_for(waiting, 10)
    assert changed is not None
    assert changed.position.seq > page.position.seq


def test_a_damaged_page_is_refused() -> None:
    """One changed byte of a page is noticed before anything of it is used."""
    content = make_page(Position(3, "stamp"), {b"kname": b"value"}, {b"kgone"})
    assert read_page(content).position == Position(3, "stamp")
    for wrong in (content.replace(b"value", b"valuE"), content.replace(b"stamp", b"stamP"), b"x"):
        with pytest.raises(SnapshotFormatError):
            read_page(wrong)
