"""The agent's open credentials: what opens is told, what does not is not, nothing shows itself."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from penstock.catalog.credentials.deks import create_dek
from penstock.catalog.credentials.model import CredentialIdentity
from penstock.catalog.credentials.rules import seal_credential
from penstock.contract.node import MAX_MESSAGE_BYTES, Credentials, encode_message
from penstock.contract.snapshot import SealedCredential, WrappedDek
from penstock.kit.clock import ManualClock
from penstock.kit.envelope import SecretBytes
from penstock.kit.kek.file import FileKek, add_key_version, create_key_file, remove_key_version
from penstock.kit.kek.model import Context, KekUnavailableError, WrappedKey
from penstock.node.credentials import REOPEN_S, OpenCredentials

CANARY = "sk-canary-42"


class AwayKek(FileKek):
    """A key file that is out of reach when told so, and counts what it is asked."""

    is_away = False
    asked = 0

    def unwrap(self, wrapped: WrappedKey, context: Context) -> SecretBytes:
        """See `Kek`."""
        self.asked += 1
        if self.is_away:
            message = "the keeper is away"
            raise KekUnavailableError(message)
        return super().unwrap(wrapped, context)


@dataclass
class Rig:
    """A store of sealed credentials, and what workers are told of them."""

    path: Path
    kek: AwayKek
    clock: ManualClock = field(default_factory=ManualClock)
    sealed: dict[str, SealedCredential] = field(default_factory=dict)
    sealed_version: int = 0
    told: list[dict[str, str]] = field(default_factory=list)
    opened: OpenCredentials = field(init=False)

    def __post_init__(self) -> None:
        """Open what is in the store."""
        self.opened = OpenCredentials(self, self.kek, self.clock, self._tell)

    def list_sealed(self) -> list[SealedCredential]:
        """See `SealedStore`."""
        return list(self.sealed.values())

    def put(self, name: str, secret: str, organization: str | None = None) -> None:
        """Seal a secret under a data key of its own, and put it into the store."""
        stored, dek = create_dek(f"dek_{name}", organization, self.kek)
        identity = CredentialIdentity(
            organization_id=organization, credential_id=name, provider="vllm"
        )
        one = seal_credential(identity, SecretBytes(secret.encode()), dek)
        wrapped = stored.wrapped
        self.sealed[name] = SealedCredential(
            id=name,
            organization=organization,
            provider="vllm",
            aad_version=one.aad_version,
            nonce=one.sealed.nonce,
            ciphertext=one.sealed.ciphertext,
            dek=WrappedDek(stored.id, wrapped.kek.uri, wrapped.kek.number, wrapped.ciphertext),
        )
        self.sealed_version += 1

    async def look(self) -> dict[str, str]:
        """Have the store looked at, and return what workers know then."""
        await self.opened.look(10)
        return self.told[-1] if self.told else {}

    def _tell(self) -> None:
        messages = list(self.opened.messages())
        if messages:
            assert [one.is_last for one in messages[:-1]] == [False] * (len(messages) - 1)
            assert messages[-1].is_last
            self.told.append({k: v for one in messages for k, v in one.tokens.items()})


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    """A node with a key file and an empty store."""
    create_key_file(tmp_path / "kek.json")
    rig = Rig(tmp_path / "kek.json", AwayKek(tmp_path / "kek.json"))
    running = asyncio.create_task(rig.opened.run())
    await rig.look()
    yield rig
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_what_opens_is_told(rig: Rig) -> None:
    """Workers are told of all that open, of changes at once, and of an empty store, too."""
    assert rig.told == [{}]
    rig.put("crd_1", "sk-1")
    rig.put("crd_2", "sk-2", "org_acme")
    assert await rig.look() == {"crd_1": "sk-1", "crd_2": "sk-2"}
    rig.put("crd_1", "sk-new")
    assert await rig.look() == {"crd_1": "sk-new", "crd_2": "sk-2"}
    del rig.sealed["crd_2"]
    rig.sealed_version += 1
    assert await rig.look() == {"crd_1": "sk-new"}
    assert len(rig.told) == 4
    await rig.look()
    assert len(rig.told) == 4, "nothing new is not told"


async def test_the_kek_is_asked_once_a_period(rig: Rig) -> None:
    """What is open is not opened again by a look, but after five minutes it is."""
    rig.put("crd_1", "sk-1")
    await rig.look()
    rig.put("crd_2", "sk-2")
    await rig.look()
    assert rig.kek.asked == 2
    rig.clock.advance(REOPEN_S)
    await rig.look()
    assert rig.kek.asked == 4
    assert len(rig.told) == 3, "the same tokens are not told again"


async def test_a_moved_credential_is_dropped_alone(rig: Rig) -> None:
    """A record under another organization, or that was altered, is not used; others are."""
    for name in ("crd_1", "crd_2", "crd_3"):
        rig.put(name, f"sk-{name}", "org_acme")
    rig.sealed["crd_1"] = msgspec.structs.replace(rig.sealed["crd_1"], organization="org_other")
    rig.sealed["crd_2"] = msgspec.structs.replace(rig.sealed["crd_2"], ciphertext=b"x" * 40)
    assert await rig.look() == {"crd_3": "sk-crd_3"}
    assert rig.opened.figures == {"open": 1, "unreadable": 2, "waiting": 0}


@pytest.mark.parametrize("secret", ["sk\r\nhost: x", "two words", "schlüssel"])
async def test_what_no_header_carries_reaches_no_worker(rig: Rig, secret: str) -> None:
    """Whoever sealed it, a secret that would end a header is dropped."""
    rig.put("crd_1", secret)
    assert await rig.look() == {}
    assert rig.opened.figures["unreadable"] == 1


async def test_a_kek_out_of_reach_takes_nothing_away(rig: Rig) -> None:
    """What is open stays while the KEK is away, what is new waits, and both are told of."""
    rig.put("crd_1", "sk-1")
    await rig.look()
    rig.kek.is_away = True
    rig.clock.advance(REOPEN_S)
    rig.put("crd_2", "sk-2")
    assert await rig.look() == {"crd_1": "sk-1"}
    assert rig.opened.figures == {"open": 1, "unreadable": 0, "waiting": 2}
    asked = rig.kek.asked
    await rig.look()
    assert rig.kek.asked == asked + 1, "one that is away is asked once a round"
    rig.kek.is_away = False
    assert await rig.look() == {"crd_1": "sk-1", "crd_2": "sk-2"}
    assert rig.opened.figures["waiting"] == 0


async def test_a_kek_that_was_taken_away_ends_its_credentials(rig: Rig) -> None:
    """A key file that is gone, or a version that is, ends within a period what it opened."""
    rig.put("crd_1", "sk-1")
    assert await rig.look()
    _move(rig.path, rig.path.with_name("away"))
    assert await rig.look(), "within the period it is used"
    rig.clock.advance(REOPEN_S)
    await rig.look()
    assert rig.opened.figures == {"open": 0, "unreadable": 0, "waiting": 1}
    _move(rig.path.with_name("away"), rig.path)
    assert await rig.look() == {"crd_1": "sk-1"}
    add_key_version(rig.path)
    remove_key_version(rig.path, 1)
    rig.clock.advance(REOPEN_S)
    assert await rig.look() == {}
    assert rig.opened.figures["unreadable"] == 1


async def test_nothing_known_is_nothing_said(rig: Rig) -> None:
    """An agent whose KEK is away from its start leaves workers what they were told before."""
    rig.put("crd_1", "sk-1")
    rig.kek.is_away = True
    later = OpenCredentials(rig, rig.kek, rig.clock, lambda: None)
    running = asyncio.create_task(later.run())
    await later.look(10)
    assert later.figures == {"open": 0, "unreadable": 0, "waiting": 1}
    assert list(later.messages()) == []
    rig.kek.is_away = False
    await later.look(10)
    assert list(later.messages()) == [Credentials({"crd_1": "sk-1"})]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_patience_has_an_end(rig: Rig) -> None:
    """A KEK that hangs holds nobody up for longer than the patience."""
    loop, started, ends = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def hang() -> list[SealedCredential]:
        loop.call_soon_threadsafe(started.set)
        rig.clock.advance(0)
        ends.wait(60)
        return []

    slow = OpenCredentials(_Slow(hang), rig.kek, rig.clock, lambda: None)
    running = asyncio.create_task(slow.run())
    await slow.look(0.05)
    await started.wait()
    ends.set()
    assert list(slow.messages()) == []
    await slow.look(10)
    assert list(slow.messages()) == [Credentials({})]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@dataclass
class _Slow:
    """A store that takes its time."""

    list_sealed: Callable[[], list[SealedCredential]]
    sealed_version: int = 0


async def test_messages_fit_into_frames(rig: Rig) -> None:
    """However many and long they are, each part is within the bound of a message."""
    for number in range(300):
        rig.put(f"crd_{number:012}", f"{number}-" + "x" * 16_000)
    told = await rig.look()
    assert len(told) == 300
    frames = [encode_message(message) for message in rig.opened.messages()]
    assert len(frames) == 2
    assert max(map(len, frames)) <= MAX_MESSAGE_BYTES


async def test_nothing_shows_a_token(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """No representation and no log line has a token in it, also when things go wrong."""
    caplog.set_level("DEBUG")
    rig.put("crd_1", CANARY)
    await rig.look()
    rig.sealed["crd_2"] = msgspec.structs.replace(rig.sealed["crd_1"], id="crd_2")
    rig.sealed_version += 1
    await rig.look()
    rig.kek.is_away = True
    rig.clock.advance(REOPEN_S)
    await rig.look()
    shown: list[Any] = [rig.opened, rig.opened._entries, *rig.opened.messages()]
    assert rig.told[-1] == {"crd_1": CANARY}
    assert CANARY not in repr(shown) + caplog.text
    assert "credential dropped" in caplog.text


def _move(path: Path, target: Path) -> None:
    path.rename(target)


@pytest.mark.parametrize("turns", range(8))
async def test_it_ends_when_it_is_told_to(tmp_path: Path, turns: int) -> None:
    """Ended in the moments in which it is asked to look, it looks no more and does not go on."""
    create_key_file(tmp_path / "kek.json")
    rig = Rig(tmp_path / "kek.json", AwayKek(tmp_path / "kek.json"))
    running = asyncio.create_task(rig.opened.run())
    await rig.look()
    asking = asyncio.create_task(rig.opened.look(10))
    for _ in range(turns):
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait({running}, timeout=20)
    assert running.cancelled()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
