"""Secrets of a key, in whatever order they are rotated, revoked, disabled and shown."""

import asyncio
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.fakes.databases import create_template, sqlite_database
from tests.fakes.organizations import (
    ALL,
    NOW_US,
    OPERATOR,
    SECOND_US,
    actor,
    create_key,
    create_place,
)

from penstock.access import rotation, service
from penstock.access.errors import KEY_REVOKED, ROTATION_CONFLICT, SECRET_REVOKED
from penstock.access.key_rules import is_live
from penstock.access.model import KeySecret, NewKey, VerifiedKey
from penstock.access.peppers import Peppers
from penstock.access.rehash import record_macs
from penstock.access.verification import verify_key
from penstock.audit import service as audit
from penstock.audit.signing import PublicKeys
from penstock.kit.errors import ErrorCode, PenstockError

PEPPER_TEXTS = [f"pepper-of-these-tests-number-{number:03}".encode() for number in range(1, 100)]
INFINITY = 10**18


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
        self.is_disabled = False
        self.is_revoked = False

    def teardown(self) -> None:
        """Leave nothing behind."""
        self.runner.run(self.context.__aexit__(None, None, None))
        self.runner.close()
        self.folder.cleanup()

    @initialize(expires_in_s=st.none() | st.integers(1, 400))
    def create(self, expires_in_s: int | None) -> None:
        """A key with, or without, an end."""
        expiry = None if expires_in_s is None else NOW_US + expires_in_s * SECOND_US
        self.expires_at_us = expiry or INFINITY
        self.organization, project = self.runner.run(create_place(self.database))
        new = NewKey(name="key", expires_at_us=expiry)
        created = self.runner.run(create_key(self.database, project, new, peppers=self.peppers))
        self.key_id = created.key.id
        self._add(created.text, created.secret.id)

    @rule(seconds=st.integers(0, 120))
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
                self.ends[self.active] = end if grace_s else self.now_us
            self._add(*outcome)

    @precondition(lambda self: self.ids)
    @rule(data=st.data())
    def revoke_secret(self, data: st.DataObject) -> None:
        """One secret ends at once; the others stay."""
        text = data.draw(st.sampled_from(sorted(self.ids)))
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

    @rule(is_meant=st.sampled_from([False, False, False, True]))
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
    def the_audit_log_is_whole(self) -> None:
        """Whatever was done or refused, the chain verifies."""
        if self.ends:
            assert self.runner.run(self._verify_log())

    def _add(self, text: str, secret_id: str) -> None:
        self.active = text
        self.ends[text] = INFINITY
        self.ids[text] = secret_id

    def _lives(self, text: str) -> bool:
        return self.now_us < self.ends[text]

    def _opens(self, text: str) -> bool:
        is_live = self._lives(text) and self.now_us < self.expires_at_us
        is_open = not self.is_disabled and not self.is_revoked
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
            max_examples=25, stateful_step_count=20, suppress_health_check=list(HealthCheck)
        )
        case().runTest()
