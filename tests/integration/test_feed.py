"""The configuration feed: whoever follows it, however, ends with the same records."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.fakes.followers import Ask, Follower, asking
from tests.fakes.organizations import ALL, NOW_US, OPERATOR, PEPPERS, SECOND_US, actor

from penstock.access import rotation
from penstock.access import service as access
from penstock.access.model import NewKey
from penstock.access.peppers import Peppers
from penstock.access.rehash import record_reported
from penstock.contract.feed import Position, make_page, read_page
from penstock.contract.snapshot import SnapshotFormatError
from penstock.kit.errors import PenstockError
from penstock.storage.database import Database
from penstock.storage.sessions import WriteSession
from penstock.tenancy import service as tenancy


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

    async def change(self) -> None:
        """Make one change, as a service makes it."""
        self._now_us += SECOND_US
        choices = [self._create_organization]
        if self._organizations:
            choices += [self._create_project, self._suspend, self._resume]
        if self._projects:
            choices += [self._create_key] * 3
        if self._keys:
            choices += [self._rotate, self._disable, self._enable, self._revoke, self._rehash]
        step = self._chance.choice(choices)
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


@pytest.mark.parametrize("seed", range(4))
async def test_all_followers_end_alike(
    database: Database, ask: Ask, tmp_path: Path, seed: int
) -> None:
    """Following each change, some of them, or all at the end leads to the same records."""
    chance = random.Random(seed)
    world = World(database, chance)
    every, some, late = (Follower(tmp_path / name, ask) for name in ("every", "some", "late"))
    for _ in range(60):
        await world.change()
        await every.follow()
        if chance.random() < 0.2:
            await some.follow()
    await some.follow()
    await late.follow()
    assert every.records() == some.records() == late.records()
    assert every.records(), "nothing was fed: the test would show nothing"
    assert every.fulls == late.fulls == 1


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
    changed = await asyncio.wait_for(waiting, 2)
    assert changed is not None
    assert changed.position.seq > page.position.seq


def test_a_damaged_page_is_refused() -> None:
    """One changed byte of a page is noticed before anything of it is used."""
    content = make_page(Position(3, "stamp"), {b"kname": b"value"}, {b"kgone"})
    assert read_page(content).position == Position(3, "stamp")
    for wrong in (content.replace(b"value", b"valuE"), content.replace(b"stamp", b"stamP"), b"x"):
        with pytest.raises(SnapshotFormatError):
            read_page(wrong)
