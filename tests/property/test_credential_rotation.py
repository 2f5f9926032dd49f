"""Credentials under any order of changes and rotations that die: the last secret is what opens."""

import asyncio
import tempfile
from contextlib import suppress
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import func, select
from tests.fakes.databases import create_template, sqlite_database
from tests.fakes.effort import tries
from tests.fakes.organizations import ALL, NOW_US, actor, create_organization
from tests.fakes.sealed_credentials import create_credential, find_state, read_secret

from penstock.catalog.credentials import jobs, service
from penstock.catalog.credentials.data_keys import DataKeys
from penstock.catalog.credentials.errors import KeysUnavailableError
from penstock.catalog.tables import Deks
from penstock.kit.clock import ManualClock
from penstock.kit.envelope import SecretBytes
from penstock.kit.kek.file import (
    FileKek,
    add_key_version,
    create_key_file,
    read_key_file,
    remove_key_version,
)
from penstock.kit.kek.model import Context, KekUnavailableError, WrappedKey


class DyingKek(FileKek):
    """A KEK that goes away behind a number of calls, as a process dies in between."""

    calls_left: int | None = None

    def wrap(self, key: SecretBytes, context: Context) -> WrappedKey:
        """See `Kek`."""
        self._call()
        return super().wrap(key, context)

    def unwrap(self, wrapped: WrappedKey, context: Context) -> SecretBytes:
        """See `Kek`."""
        self._call()
        return super().unwrap(wrapped, context)

    def _call(self) -> None:
        if self.calls_left is not None:
            self.calls_left -= 1
            if self.calls_left < 0:
                message = "dead"
                raise KekUnavailableError(message)


class Rotations(RuleBasedStateMachine):
    """Credentials of two owners beside their model: the secret that each had last."""

    template: Path
    """A migrated file, made once."""

    def __init__(self) -> None:
        """See the class."""
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        folder = Path(self.folder.name)
        self.context = sqlite_database(self.template, folder)
        self.database = self.runner.run(self.context.__aenter__())
        self.path = folder / "kek.json"
        create_key_file(self.path)
        self.kek = DyingKek(self.path)
        self.secrets: dict[str, str] = {}
        self.count = 0

    def teardown(self) -> None:
        """Leave nothing behind."""
        self.runner.run(self.context.__aexit__(None, None, None))
        self.runner.close()
        self.folder.cleanup()

    @property
    def keys(self) -> DataKeys:
        """Data keys of a process that was started just now."""
        return DataKeys(self.kek, ManualClock())

    @initialize()
    def begin(self) -> None:
        """The platform and an organization."""
        organization = self.runner.run(create_organization(self.database))
        self.owners = (None, organization.id)

    @rule(which=st.integers(0, 1))
    def create(self, which: int) -> None:
        """A credential more."""
        self.count += 1
        made = self.runner.run(
            create_credential(
                self.database,
                self.keys,
                f"credential {self.count}",
                organization_id=self.owners[which],
                secret=f"sk-{self.count}",
            )
        )
        self.secrets[made.id] = f"sk-{self.count}"

    @precondition(lambda self: self.secrets)
    @rule(data=st.data())
    def set_secret(self, data: st.DataObject) -> None:
        """Another secret of one that is there."""
        self.count += 1
        name = data.draw(st.sampled_from(list(self.secrets)))
        self.runner.run(self._set(name, f"sk-{self.count}"))
        self.secrets[name] = f"sk-{self.count}"

    @precondition(lambda self: self.secrets)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        """One that is there goes."""
        name = data.draw(st.sampled_from(list(self.secrets)))
        self.runner.run(self._delete(name))
        del self.secrets[name]

    @rule()
    def add_version(self) -> None:
        """The KEK is rotated where it is kept."""
        add_key_version(self.path)

    @rule(which=st.integers(0, 1), calls=st.integers(0, 12), size=st.integers(1, 3))
    def rotate_and_die(self, which: int, calls: int, size: int) -> None:
        """A data key rotation that may not come to its end."""
        self.kek.calls_left = calls
        with suppress(KeysUnavailableError):
            self.runner.run(
                jobs.rotate_data_key(
                    self.database, self.keys, actor(), self.owners[which], batch_size=size
                )
            )
        self.kek.calls_left = None

    @rule(calls=st.integers(0, 12))
    def rewrap_and_die(self, calls: int) -> None:
        """A KEK rotation that may not come to its end."""
        self.kek.calls_left = calls
        with suppress(KeysUnavailableError):
            self.runner.run(jobs.rewrap_data_keys(self.database, self.keys, actor(), batch_size=1))
        self.kek.calls_left = None

    @rule(which=st.integers(0, 1))
    def rotate(self, which: int) -> None:
        """A data key rotation comes to its end, and one data key is left."""
        owner = self.owners[which]
        report = self.runner.run(
            jobs.rotate_data_key(self.database, self.keys, actor(), owner, batch_size=2)
        )
        assert report.is_complete
        assert report.unreadable == 0
        assert self.runner.run(self._count_deks(owner)) <= 1

    @rule()
    def rewrap_and_destroy(self) -> None:
        """When nothing is counted that needs them, old versions of the KEK go."""
        report = self.runner.run(
            jobs.rewrap_data_keys(self.database, self.keys, actor(), batch_size=2)
        )
        assert report.is_complete
        versions = read_key_file(self.path).keys
        for number in sorted(versions)[:-1]:
            remove_key_version(self.path, number)

    @invariant()
    def what_was_set_last_opens(self) -> None:
        """Every credential opens to its last secret, and none is marked."""
        keys = self.keys
        for name, secret in self.secrets.items():
            opened = self.runner.run(read_secret(self.database, keys, name))
            assert opened.reveal().decode() == secret
            assert self.runner.run(find_state(self.database, name)) == "active"

    async def _set(self, name: str, secret: str) -> None:
        async with self.database.write(ALL) as session:
            await service.update_credential(
                session, actor(NOW_US), self.keys, name, {"secret": secret}
            )

    async def _delete(self, name: str) -> None:
        async with self.database.write(ALL) as session:
            await service.delete_credential(session, actor(NOW_US), name)

    async def _count_deks(self, owner: str | None) -> int:
        condition = (
            Deks.organization_id.is_(None) if owner is None else Deks.organization_id == owner
        )
        async with self.database.read(ALL) as session:
            return int((await session.rows(select(func.count()).where(condition)))[0][0])


def test_rotations() -> None:
    """Whatever is changed and wherever rotations die, every secret opens under its owner's key."""
    with tempfile.TemporaryDirectory() as folder:
        Rotations.template = create_template(Path(folder))
        case = Rotations.TestCase
        case.settings = settings(
            max_examples=tries(20),
            stateful_step_count=15,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        case().runTest()
