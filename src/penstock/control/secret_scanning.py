"""Takes in what GitHub's secret scanning found: keys of ours in public repositories.

Whoever calls has no token; the body is signed. Nothing is fetched: the public keys are in a file.
"""

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from fastapi import APIRouter, Request, Response

from penstock.access.leaks import Leak, LeakAction, end_leaked
from penstock.access.peppers import Peppers
from penstock.audit.model import Actor
from penstock.control import log_events
from penstock.control.door import read_body
from penstock.control.errors import (
    SCANNING_KEYS_INVALID,
    SCANNING_REPORT_INVALID,
    SIGNATURE_WRONG,
    AuthenticationError,
)
from penstock.kit.clock import Clock
from penstock.kit.errors import PenstockError
from penstock.storage.database import Database
from penstock.storage.scope import Scope

PATH = "/secret-scanning/github"
MAX_MATCHES = 1_000
"""Texts of one report."""
_KEY_ID = "github-public-key-identifier"
_SIGNATURE = "github-public-key-signature"
_CHALLENGE = "Signature"


class _PublicKey(msgspec.Struct):
    key_identifier: str
    key: str


class _PublicKeys(msgspec.Struct):
    public_keys: list[_PublicKey]


class _Match(msgspec.Struct):
    token: str
    type: str
    url: str = ""


class _Feedback(msgspec.Struct):
    token_raw: str
    token_type: str
    label: str


_decode_keys = msgspec.json.Decoder(_PublicKeys).decode
_decode_matches = msgspec.json.Decoder(list[_Match]).decode
_encode = msgspec.json.Encoder().encode


class ScannerKeys:
    """The keys whose signatures count.

    Args:
        keys: P-256 public keys by the identifier that signers name.
    """

    def __init__(self, keys: Mapping[str, EllipticCurvePublicKey]) -> None:
        """See the class."""
        self._keys = keys

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Return the keys of a file in the form of GitHub's `/meta/public_keys/secret_scanning`.

        Raises:
            PenstockError: `SCANNING_KEYS_INVALID`: it cannot be read, is of another form, has no
                key, or one that is not of P-256.
        """
        try:
            found = _decode_keys(path.read_bytes()).public_keys
            keys = {one.key_identifier: load_pem_public_key(one.key.encode()) for one in found}
        except (OSError, ValueError) as error:
            raise PenstockError(SCANNING_KEYS_INVALID, f"{path}: {error}") from None
        curves = {
            name: key
            for name, key in keys.items()
            if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1)
        }
        if not curves or len(curves) != len(keys):
            raise PenstockError(SCANNING_KEYS_INVALID, f"{path}: wants keys of P-256, at least one")
        return cls(curves)

    def is_signed(self, key_id: str, signature: str, content: bytes) -> bool:
        """Return whether one of the keys signed this content.

        Args:
            key_id: The identifier of the key, as the caller says it.
            signature: ECDSA with SHA-256, in DER, in Base64.
            content: What was signed.
        """
        key = self._keys.get(key_id)
        if key is None:
            return False
        try:
            key.verify(base64.b64decode(signature, validate=True), content, ECDSA(SHA256()))
        except (InvalidSignature, binascii.Error, ValueError):
            return False
        return True


def create_secret_scanning_router(
    database: Database, peppers: Peppers, clock: Clock, keys: ScannerKeys, action: LeakAction
) -> APIRouter:
    """Return the endpoint that GitHub reports to.

    Args:
        database: Where keys are.
        peppers: What keys are hashed under.
        clock: Says when a report came.
        keys: Whose signatures count.
        action: What becomes of a key that was found.
    """
    # GitHub's interface, not ours: it has no place in our document.
    router = APIRouter(include_in_schema=False)

    @router.post(PATH)
    async def take_report(request: Request) -> Response:
        matches = _read_matches(await _read_signed(request, keys))
        address = None if request.client is None else request.client.host
        now_us = clock.wall_ns() // 1_000
        actor = Actor(kind="system", id="github_secret_scanning", at_us=now_us, address=address)
        leaks = [Leak(match.token, match.url) for match in matches]
        async with database.write(Scope.all_organizations()) as session:
            found = await end_leaked(session, actor, peppers, leaks, action)
        log_events.KEYS_LEAKED.log(texts=len(found), ours=sum(found))
        feedback = [
            _Feedback(match.token, match.type, "true_positive" if is_ours else "false_positive")
            for match, is_ours in zip(matches, found, strict=True)
        ]
        return Response(_encode(feedback), media_type="application/json")

    return router


async def _read_signed(request: Request, keys: ScannerKeys) -> bytes:
    """Return the body, which nobody but a signer has any of looked at.

    Raises:
        AuthenticationError: `SIGNATURE_WRONG`, whatever is wrong with it.
        PenstockError: `BODY_TOO_LARGE`.
    """
    key_id = request.headers.get(_KEY_ID)
    signature = request.headers.get(_SIGNATURE)
    if not key_id or not signature:
        raise AuthenticationError(SIGNATURE_WRONG, _CHALLENGE)
    content = await read_body(request)
    if not keys.is_signed(key_id, signature, content):
        raise AuthenticationError(SIGNATURE_WRONG, _CHALLENGE)
    return content


def _read_matches(content: bytes) -> list[_Match]:
    try:
        matches = _decode_matches(content)
    except msgspec.DecodeError as error:
        raise PenstockError(SCANNING_REPORT_INVALID, f"The report: {error}.") from None
    if len(matches) > MAX_MATCHES:
        message = f"A report has at most {MAX_MATCHES} texts."
        raise PenstockError(SCANNING_REPORT_INVALID, message)
    return matches
