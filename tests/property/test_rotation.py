"""Secrets of a key, in whatever order they are rotated, scheduled, revoked, disabled and shown."""

import asyncio
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.fakes.databases import create_template, sqlite_database
from tests.fakes.effort import tries
from tests.fakes.organizations import (
    ALL,
    NOW_US,
    OPERATOR,
    SECOND_US,
    actor,
    create_key,
    create_place,
)

from penstock.access import due, rotation, service
from penstock.access.errors import KEY_REVOKED, ROTATION_CONFLICT, SECRET_REVOKED
from penstock.access.key_rules import is_live
from penstock.access.model import ApiKey, KeyChanges, KeySecret, NewKey, VerifiedKey
from penstock.access.peppers import Peppers
from penstock.access.rehash import record_macs
from penstock.access.verification import verify_key
from penstock.audit import service as audit
from penstock.audit.signing import PublicKeys
from penstock.kit.errors import ErrorCode, PenstockError
from penstock.tenancy import people, store
from penstock.tenancy.model import Member

PEPPER_TEXTS = [f"pepper-of-these-tests-number-{number:03}".encode() for number in range(1, 100)]
INFINITY = 10**18


def _identity(key: ApiKey) -> tuple[object, ...]:
    return (
        key.id,
        key.project_id,
        key.member_id,
        key.role,
        key.scopes,
        key.allowed_aliases,
        key.allowed_cidrs,
        key.labels,
        key.expires_at_us,
        key.created_at_us,
    )


class Rotation(RuleBasedStateMachine):
    """A key beside its model: each text with the time at which it ends."""

    template: Path
    """A migrated file, made once."""

    def __init__(self) -> None:
        """See the class."""
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.context = sqlite_database(self.template, Path(self.folder.name))
        self.database = self.runner.run(self.context.__aenter__())
        self.now_us = NOW_US
        self.peppers = Peppers({1: PEPPER_TEXTS[0]})
        self.ends: dict[str, int] = {}
        """When each text stops working, if the key works that long."""
        self.ids: dict[str, str] = {}
        """The secret's id of each text."""
        self.lost: set[str] = set()
        """Texts that are stored under a pepper that is gone."""
        self.active = ""
        self.made_at_us = NOW_US
        """When the active one was made."""
        self.interval_s: int | None = None
        self.grace_s = 0
        self.is_scheduled = False
        """Whether the schedule gave the active one its end."""
        self.is_member_there = True
        self.is_disabled = False
        self.is_revoked = False

    def teardown(self) -> None:
        """Leave nothing behind."""
        self.runner.run(self.context.__aexit__(None, None, None))
        self.runner.close()
        self.folder.cleanup()

    @initialize(
        expires_in_s=st.none() | st.integers(1, 40_000),
        is_members=st.booleans(),
        interval_s=st.sampled_from([None, 3_600]),
        grace_s=st.sampled_from([0, 60, 600]),
    )
    def create(
        self, expires_in_s: int | None, *, is_members: bool, interval_s: int | None, grace_s: int
    ) -> None:
        """A key with, or without, an end; of a member, or of nobody."""
        expiry = None if expires_in_s is None else NOW_US + expires_in_s * SECOND_US
        self.expires_at_us = expiry or INFINITY
        self.organization, project = self.runner.run(create_place(self.database))
        self.member = self.runner.run(self._add_member()) if is_members else None
        new = NewKey(
            name="key",
            expires_at_us=expiry,
            labels={"stage": "test"},
            rotation_interval_s=interval_s,
            rotation_grace_s=grace_s if interval_s is not None else None,
            allowed_aliases=["small"],
            member_id=None if self.member is None else self.member.id,
        )
        created = self.runner.run(create_key(self.database, project, new, peppers=self.peppers))
        self.interval_s, self.grace_s = interval_s, grace_s
        self.key_id = created.key.id
        self.identity = _identity(created.key)
        self._add(created.text, created.secret.id)

    @rule(seconds=st.integers(0, 120) | st.sampled_from([600, 1_800, 3_600]))
    def wait(self, seconds: int) -> None:
        """Time goes on."""
        self.now_us += seconds * SECOND_US

    @rule(grace_s=st.sampled_from([0, 1, 30, 60, 300]))
    def rotate(self, grace_s: int) -> None:
        """The active secret retires, or ends; a third live one is refused."""
        live = [text for text in self.ends if self._lives(text)]
        outcome = self.runner.run(self._rotate(grace_s))
        is_active = self._lives(self.active)
        if self.is_revoked:
            assert outcome is KEY_REVOKED
        elif is_active and grace_s > 0 and len(live) > 1:
            assert outcome is ROTATION_CONFLICT
        else:
            assert isinstance(outcome, tuple)
            if is_active:
                end = min(self.now_us + grace_s * SECOND_US, self.expires_at_us)
                self.ends[self.active] = min(
                    end if grace_s else self.now_us, self.ends[self.active]
                )
            self._add(*outcome)

    @rule(interval_s=st.sampled_from([None, 3_600, 7_200]), grace_s=st.sampled_from([0, 60, 600]))
    def schedule(self, interval_s: int | None, grace_s: int) -> None:
        """Another policy takes back an end that the one before gave, if it has not come yet."""
        policy = (interval_s, grace_s if interval_s is not None else None)
        outcome = self.runner.run(self._schedule(*policy))
        assert outcome is (KEY_REVOKED if self.is_revoked else None)
        if outcome is not None:
            return
        is_another = policy != (self.interval_s, None if self.interval_s is None else self.grace_s)
        if is_another and self.is_scheduled and self._lives(self.active):
            self.ends[self.active] = INFINITY
            self.is_scheduled = False
        self.interval_s, self.grace_s = interval_s, grace_s

    @rule()
    def watch(self) -> None:
        """An active secret that is too old gets an end, with notice, and only once."""
        is_due = (
            self.interval_s is not None
            and self.now_us >= self.made_at_us + self.interval_s * SECOND_US
            and self.ends[self.active] == INFINITY
        )
        is_usable = not self.is_disabled and not self.is_revoked
        is_ended = is_due and is_usable and self.now_us < self.expires_at_us
        assert self.runner.run(self._watch()) == is_ended
        if is_ended:
            end = self.now_us + self.grace_s * SECOND_US
            self.ends[self.active] = min(end, self.expires_at_us)
            self.is_scheduled = True

    @precondition(lambda self: self.member is not None and self.is_member_there)
    @rule(is_meant=st.sampled_from([*[False] * 7, True]), is_told=st.booleans())
    def lose_member(self, *, is_meant: bool, is_told: bool) -> None:
        """The member is removed, or is just not there any more; the key goes with them."""
        if is_meant:
            self.runner.run(self._remove_member(is_told=is_told))
            self.is_member_there = False
            self.is_revoked = self.is_revoked or is_told

    @precondition(lambda self: self.ids)
    @rule(data=st.data())
    def revoke_secret(self, data: st.DataObject) -> None:
        """One secret ends at once; the others stay."""
        text = data.draw(st.sampled_from(list(self.ids)))  # as they came: they are random
        outcome = self.runner.run(self._revoke_secret(self.ids[text]))
        if self.is_revoked:
            assert outcome is KEY_REVOKED
        else:
            # One whose grace period is over may, or may not, have been ended in the table already.
            assert outcome is None or (outcome is SECRET_REVOKED and not self._lives(text))
            self.ends[text] = min(self.ends[text], self.now_us)

    @rule(is_disabled=st.booleans())
    def switch(self, *, is_disabled: bool) -> None:
        """The key is disabled or enabled."""
        outcome = self.runner.run(self._switch(is_disabled=is_disabled))
        assert outcome is (KEY_REVOKED if self.is_revoked else None)
        if outcome is None:
            self.is_disabled = is_disabled

    @rule(is_meant=st.sampled_from([*[False] * 7, True]))
    def revoke(self, *, is_meant: bool) -> None:
        """The key ends for ever, once in a while."""
        if is_meant:
            self.runner.run(self._revoke())
            self.is_revoked = True

    @rule()
    def add_pepper(self) -> None:
        """A new pepper takes over; texts that nobody showed since the one before are lost."""
        known = set(self.peppers.values)
        newest = max(known)
        values = {newest: self.peppers.values[newest], newest + 1: PEPPER_TEXTS[newest]}
        self.peppers = Peppers(values)
        stored = {secret.id: secret.pepper_id for secret in self.runner.run(self._stored())}
        self.lost |= {text for text, one in self.ids.items() if stored[one] not in values}

    @rule()
    def use_all(self) -> None:
        """Whatever is shown moves to the active pepper."""
        for text in self.ends:
            self.runner.run(self._verify(text, is_moving=True))

    @invariant()
    def exactly_the_live_secrets_open_the_key(self) -> None:
        """A text opens the key if and only if the model says so, and the id stays."""
        for text in self.ends:
            verified = self.runner.run(self._verify(text))
            if isinstance(verified, VerifiedKey):
                assert verified.record.key.id == self.key_id
            assert isinstance(verified, VerifiedKey) is self._opens(text)

    @invariant()
    def at_most_two_secrets_live(self) -> None:
        """Never more than two secrets are live in the table, and they are those of the model."""
        if self.ends:
            stored = self.runner.run(self._stored())
            live = [secret.id for secret in stored if is_live(secret, self.now_us)]
            assert len(live) <= 2
            if not self.is_revoked:
                assert set(live) == {self.ids[text] for text in self.ends if self._lives(text)}

    @invariant()
    def nothing_else_of_the_key_changes(self) -> None:
        """Whatever becomes of secrets, the key's id, owner, role, limits and labels stay."""
        if self.ends:
            assert _identity(self.runner.run(self._key())) == self.identity

    @invariant()
    def the_audit_log_is_whole(self) -> None:
        """Whatever was done or refused, the chain verifies."""
        if self.ends:
            assert self.runner.run(self._verify_log())

    def _add(self, text: str, secret_id: str) -> None:
        self.active = text
        self.made_at_us = self.now_us
        self.is_scheduled = False
        self.ends[text] = INFINITY
        self.ids[text] = secret_id

    def _lives(self, text: str) -> bool:
        return self.now_us < self.ends[text]

    def _opens(self, text: str) -> bool:
        is_live = self._lives(text) and self.now_us < self.expires_at_us
        is_open = not self.is_disabled and not self.is_revoked and self.is_member_there
        return is_live and is_open and text not in self.lost

    async def _rotate(self, grace_s: int) -> tuple[str, str] | ErrorCode:
        try:
            async with self.database.write(ALL) as session:
                created = await rotation.rotate_key(
                    session,
                    actor(self.now_us),
                    OPERATOR,
                    self.peppers,
                    key_id=self.key_id,
                    grace_s=grace_s,
                )
        except PenstockError as error:
            return error.error
        return created.text, created.secret.id

    async def _revoke_secret(self, secret_id: str) -> ErrorCode | None:
        try:
            async with self.database.write(ALL) as session:
                await rotation.revoke_secret(session, actor(self.now_us), self.key_id, secret_id)
        except PenstockError as error:
            return error.error
        return None

    async def _switch(self, *, is_disabled: bool) -> ErrorCode | None:
        who = actor(self.now_us)
        try:
            async with self.database.write(ALL) as session:
                if is_disabled:
                    await service.disable_key(session, who, self.key_id)
                else:
                    await service.enable_key(session, who, OPERATOR, self.key_id)
        except PenstockError as error:
            return error.error
        return None

    async def _revoke(self) -> None:
        async with self.database.write(ALL) as session:
            await service.revoke_key(session, actor(self.now_us), self.key_id)

    async def _add_member(self) -> Member:
        async with self.database.write(ALL) as session:
            return await people.add_member(
                session, actor(), self.organization.id, subject="ada", role="org_admin"
            )

    async def _remove_member(self, *, is_told: bool) -> None:
        assert self.member is not None
        async with self.database.write(ALL) as session:
            if is_told:
                await service.remove_member(session, actor(self.now_us), self.member.id)
            else:
                await store.delete_member(session, ALL, self.member.id)

    async def _schedule(self, interval_s: int | None, grace_s: int | None) -> ErrorCode | None:
        changes: KeyChanges = {"rotation_interval_s": interval_s, "rotation_grace_s": grace_s}
        try:
            async with self.database.write(ALL) as session:
                await service.update_key(
                    session, actor(self.now_us), OPERATOR, self.key_id, changes
                )
        except PenstockError as error:
            return error.error
        return None

    async def _watch(self) -> int:
        async with self.database.write(ALL) as session:
            return await due.end_overdue(session, actor(self.now_us))

    async def _key(self) -> ApiKey:
        async with self.database.read(ALL) as session:
            return await service.get_key(session, self.key_id)

    async def _stored(self) -> list[KeySecret]:
        async with self.database.read(ALL) as session:
            return await service.list_secrets(session, self.key_id)

    async def _verify(self, text: str, *, is_moving: bool = False) -> object:
        async with self.database.write(ALL) as session:
            verified = await verify_key(
                session, self.peppers, text, now_us=self.now_us, address=None
            )
            if is_moving and isinstance(verified, VerifiedKey):
                await record_macs(session, self.peppers, [verified], self.now_us)
        return verified

    async def _verify_log(self) -> bool:
        async with self.database.read(ALL) as session:
            chain = self.organization.id
            return (await audit.verify(session, chain, PublicKeys([]))).is_whole


def test_rotation() -> None:
    """Whatever is done to a key, exactly its live secrets open it, and never more than two."""
    with tempfile.TemporaryDirectory() as folder:
        Rotation.template = create_template(Path(folder))
        case = Rotation.TestCase
        case.settings = settings(
            max_examples=tries(25), stateful_step_count=25, suppress_health_check=list(HealthCheck)
        )
        case().runTest()
