"""Reports of keys that were found in public, on both kinds of database."""

import base64
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    SECP384R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fastapi import FastAPI
from tests.fakes.admin_rig import expect_problem
from tests.fakes.organizations import (
    ALL,
    NOW_US,
    OPERATOR,
    PEPPERS,
    actor,
    create_key,
    create_place,
)

from penstock.access import rotation, service
from penstock.access.leaks import LeakAction
from penstock.access.model import CreatedKey, KeyRefusal, NewKey, VerifiedKey
from penstock.access.rules import create_key as make_key_text
from penstock.access.rules import replace_secret
from penstock.access.verification import verify_key
from penstock.audit import service as audit
from penstock.control.app import create_app
from penstock.control.problems import install_problems
from penstock.control.secret_scanning import ScannerKeys, create_secret_scanning_router
from penstock.control.settings import ControlSettings
from penstock.kit.clock import ManualClock
from penstock.kit.errors import PenstockError
from penstock.storage.database import Database

PATH = "/secret-scanning/github"
KEY_ID = "90a421169f0a406205f1563a953312f0be898d3c7b6c06b681aa86a874555f4a"
SIGNER = generate_private_key(SECP256R1())
WRONG = "err:control:auth:signature_wrong"
Connect = Callable[[LeakAction], httpx.AsyncClient]


def _published(*keys: tuple[str, EllipticCurvePrivateKey]) -> str:
    """Return public keys as GitHub publishes them."""
    pems = [
        (name, key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        for name, key in keys
    ]
    listed = [
        {"key_identifier": name, "key": pem.decode(), "is_current": True} for name, pem in pems
    ]
    return json.dumps({"public_keys": listed})


def _headers(
    content: bytes, signer: EllipticCurvePrivateKey = SIGNER, key_id: str = KEY_ID
) -> dict[str, str]:
    signature = base64.b64encode(signer.sign(content, ECDSA(SHA256()))).decode()
    return {"Github-Public-Key-Identifier": key_id, "Github-Public-Key-Signature": signature}


def _report(*texts: str, url: str = "https://github.com/octocat/hello/blob/abc/x.py") -> bytes:
    matches = [
        {"token": text, "type": "penstock_api_key", "url": url, "source": "content"}
        for text in texts
    ]
    return json.dumps(matches).encode()


@pytest.fixture
async def connect(database: Database, tmp_path: Path) -> AsyncIterator[Connect]:
    """Return what calls a receiver that does one thing or the other with keys."""
    path = tmp_path / "keys.json"
    path.write_text(_published((KEY_ID, SIGNER)))
    keys = ScannerKeys.from_file(path)
    clients = []

    def connecting(action: LeakAction) -> httpx.AsyncClient:
        app = FastAPI()
        install_problems(app)
        clock = ManualClock(now_ns=NOW_US * 1_000)
        app.include_router(create_secret_scanning_router(database, PEPPERS, clock, keys, action))
        transport = httpx.ASGITransport(app)
        clients.append(httpx.AsyncClient(transport=transport, base_url="http://control"))
        return clients[-1]

    yield connecting
    for client in clients:
        await client.aclose()


async def _verify(database: Database, text: str) -> VerifiedKey | KeyRefusal:
    async with database.read(ALL) as session:
        return await verify_key(session, PEPPERS, text, now_us=NOW_US, address=None)


async def _tell(client: httpx.AsyncClient, content: bytes) -> list[dict[str, Any]]:
    answer = await client.post(PATH, content=content, headers=_headers(content))
    assert answer.status_code == 200, answer.text
    feedback: list[dict[str, Any]] = answer.json()
    return feedback


async def _create(database: Database) -> CreatedKey:
    _, project = await create_place(database)
    return await create_key(database, project, NewKey(name="leaked"))


async def test_nobody_reports_without_a_signature(database: Database, connect: Connect) -> None:
    """Whatever is wrong with a signature, the answer is the same, and no key is touched."""
    created = await _create(database)
    content = _report(created.text)
    other = generate_private_key(SECP256R1())
    client = connect("revoke")
    good = _headers(content)
    answers = []
    for headers in (
        {},
        {"authorization": f"Bearer {created.text}"},
        {name: value for name, value in good.items() if "Identifier" in name},
        {name: value for name, value in good.items() if "Signature" in name},
        good | {"Github-Public-Key-Identifier": "another"},
        good | {"Github-Public-Key-Signature": "not base64!"},
        good | {"Github-Public-Key-Signature": base64.b64encode(b"no DER").decode()},
        _headers(content, other),
        _headers(content + b" "),
    ):
        answers.append(await client.post(PATH, content=content, headers=headers))
        expect_problem(answers[-1], 401, WRONG)
    # Not even of a body that could not be read.
    answers.append(await client.post(PATH, content=b"{", headers=_headers(b"[")))
    assert len({answer.content for answer in answers}) == 1
    large = b"[" * 2_000_000
    refused = await client.post(PATH, content=large, headers=_headers(large))
    expect_problem(refused, 413, "err:control:request:body_too_large")
    assert isinstance(await _verify(database, created.text), VerifiedKey)


async def test_a_leaked_key_is_revoked(database: Database, connect: Connect) -> None:
    """A found key ends at once, with where it was; what is no key of ours is said to be none."""
    acme, project = await create_place(database)
    leaked = await create_key(database, project, NewKey(name="leaked"))
    other = await create_key(database, project, NewKey(name="other"))
    forged = replace_secret(other.key.id)
    url = f"https://github.com/x\u2028{leaked.text}/" + "y" * 300
    texts = [leaked.text, forged, make_key_text(), "ps_live_no", "", leaked.text]
    feedback = await _tell(connect("revoke"), _report(*texts, url=url))
    assert [one["token_raw"] for one in feedback] == texts
    assert {one["token_type"] for one in feedback} == {"penstock_api_key"}
    ours = [one["label"] == "true_positive" for one in feedback]
    assert ours == [True, False, False, False, False, True]
    assert await _verify(database, leaked.text) is KeyRefusal.REVOKED
    assert isinstance(await _verify(database, other.text), VerifiedKey)
    async with database.read(ALL) as session:
        key = await service.get_key(session, leaked.key.id)
        entries = await audit.list_entries(session, acme.id, after=0)
    assert key.revoked_reason is not None
    assert key.revoked_reason.startswith("leaked: https://github.com/x?.../yyy")
    assert len(key.revoked_reason) <= 200
    actions = [(entry.action, entry.actor_id) for entry in entries][-2:]
    assert actions == [
        ("key.leaked", "github_secret_scanning"),
        ("key.revoke", "github_secret_scanning"),
    ]
    assert leaked.text not in str(entries)
    # Told again, nothing more is done, and it is still a key of ours that was found.
    feedback = await _tell(connect("revoke"), _report(leaked.text))
    assert feedback[0]["label"] == "true_positive"
    async with database.read(ALL) as session:
        assert len(await audit.list_entries(session, acme.id, after=0)) == len(entries)


async def test_a_leaked_key_can_be_disabled_only(database: Database, connect: Connect) -> None:
    """By setting a found key is disabled, once, and can be enabled again."""
    created = await _create(database)
    client = connect("disable")
    for _ in range(2):
        await _tell(client, _report(created.text))
    assert await _verify(database, created.text) is KeyRefusal.DISABLED
    async with database.read(ALL) as session:
        entries = await audit.list_entries(session, created.key.organization_id, after=0)
    assert [entry.action for entry in entries][-2:] == ["key.leaked", "key.disable"]


async def test_a_secret_that_is_over_ends_nothing(database: Database, connect: Connect) -> None:
    """A text that opened a key once, and no more, is ours, and the key goes on."""
    created = await _create(database)
    async with database.write(ALL) as session:
        rotated = await rotation.rotate_key(
            session, actor(), OPERATOR, PEPPERS, key_id=created.key.id, grace_s=0
        )
    (feedback,) = await _tell(connect("revoke"), _report(created.text))
    assert feedback["label"] == "true_positive"
    assert isinstance(await _verify(database, rotated.text), VerifiedKey)


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[1]", b'[{"token": 7, "type": "x"}]', _report(*["x"] * 1_001), b"\xff"],
    ids=["empty", "object", "number", "wrong member", "too many", "no text"],
)
async def test_a_signed_report_can_be_wrong(connect: Connect, content: bytes) -> None:
    """A signed body that is no report is refused as such."""
    answer = await connect("revoke").post(PATH, content=content, headers=_headers(content))
    expect_problem(answer, 400, "err:control:request:scanning_report_invalid")


async def test_without_the_setting_there_is_no_receiver(tmp_path: Path) -> None:
    """The path is there exactly when a file with public keys is named."""
    path = tmp_path / "keys.json"
    path.write_text(_published((KEY_ID, SIGNER)))
    for keys, status in ((None, 404), (str(path), 401)):
        settings = ControlSettings(data_dir=str(tmp_path / "data"), secret_scanning_keys=keys)
        transport = httpx.ASGITransport(create_app(settings))
        async with httpx.AsyncClient(transport=transport, base_url="http://control") as client:
            assert (await client.post(PATH, content=b"[]")).status_code == status


@pytest.mark.parametrize(
    "content",
    [
        None,
        "",
        "{}",
        '{"public_keys": []}',
        '{"public_keys": [{"key_identifier": "a", "key": "no PEM"}]}',
        _published(("a", generate_private_key(SECP384R1()))),
    ],
)
def test_bad_public_keys_do_not_start(tmp_path: Path, content: str | None) -> None:
    """A file that holds no keys of P-256 stops the start, with its name in the message."""
    path = tmp_path / "keys.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(PenstockError, match=r"keys\.json"):
        ScannerKeys.from_file(path)
