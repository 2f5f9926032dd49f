"""Signatures under checkpoints: Ed25519, with a key that is kept outside the database."""

import dataclasses
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from penstock.audit.errors import SIGNING_KEY_INVALID
from penstock.audit.model import Checkpoint
from penstock.audit.rules import checkpoint_content
from penstock.kit.errors import PenstockError
from penstock.kit.files import read_or_create_secret
from penstock.kit.secrets import find_secret_fault

_SEED_BYTES = 32


class PublicKeys:
    """The keys whose signatures count.

    Args:
        keys: Raw public keys, 32 bytes each; those that signed before belong here, too.
    """

    def __init__(self, keys: Iterable[bytes]) -> None:
        """See the class."""
        self._keys = {signer_id(key): Ed25519PublicKey.from_public_bytes(key) for key in keys}

    def is_signed(self, checkpoint: Checkpoint) -> bool:
        """Return whether one of them signed exactly this checkpoint."""
        key = self._keys.get(checkpoint.signer)
        if key is None:
            return False
        try:
            key.verify(checkpoint.signature, checkpoint_content(checkpoint))
        except InvalidSignature:
            return False
        return True


class CheckpointSigner:
    """Signs checkpoints.

    Args:
        seed: 32 secret bytes.
    """

    def __init__(self, seed: bytes) -> None:
        """See the class."""
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public_key = self._key.public_key().public_bytes_raw()
        """32 bytes; not secret."""
        self._id = signer_id(self.public_key)

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Return the signer whose seed is in a file as 64 hexadecimal digits; made when missing.

        Raises:
            PenstockError: `SIGNING_KEY_INVALID`.
            OSError: The file cannot be read or made.
        """
        content = read_or_create_secret(path)
        try:
            seed = bytes.fromhex(content.decode("ascii"))
        except ValueError:
            seed = b""
        if len(seed) != _SEED_BYTES:
            raise PenstockError(SIGNING_KEY_INVALID, f"{path} is not 64 hexadecimal digits")
        fault = find_secret_fault(path, content)
        if fault is not None:
            raise PenstockError(SIGNING_KEY_INVALID, fault)
        return cls(seed)

    @property
    def public_keys(self) -> PublicKeys:
        """The key of this signer alone."""
        return PublicKeys([self.public_key])

    def sign(self, chain: str, number: int, head: bytes, now_us: int) -> Checkpoint:
        """Return the signed statement that a chain has this many links and ends in this hash."""
        unsigned = Checkpoint(
            chain=chain,
            number=number,
            hash=head,
            signed_at_us=now_us,
            signer=self._id,
            signature=b"",
        )
        return dataclasses.replace(unsigned, signature=self._key.sign(checkpoint_content(unsigned)))


def signer_id(public_key: bytes) -> str:
    """Return the id of a public key: 16 hexadecimal digits."""
    return hashlib.sha256(public_key).hexdigest()[:16]
