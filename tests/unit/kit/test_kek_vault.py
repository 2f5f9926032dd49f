"""The KEK in Vault's Transit engine, against a fake of the part of hvac that is used."""

import base64
import importlib.util
from collections.abc import Mapping
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from penstock.kit.envelope import SecretBytes
from penstock.kit.kek.model import (
    KekRefusedError,
    KekUnavailableError,
    KekVersion,
    UnwrapError,
    WrappedKey,
    rewrap,
)
from penstock.kit.kek.vault import VaultTransitKek, connect_vault

ACME = {"organization": "org_acme", "dek": "dek_1"}
OTHER = {"organization": "org_other", "dek": "dek_1"}
KEY = SecretBytes(b"canary-canary-canary-canary-cana")


class VaultError(Exception):
    """As hvac's: its text repeats the request."""

    def __init__(self, *errors: str) -> None:
        super().__init__(f"{errors}, on post with canary")
        self.errors = list(errors)


class InvalidRequest(VaultError):  # noqa: N818  # hvac's name
    """Status 400."""


class InvalidPath(VaultError):  # noqa: N818  # hvac's name
    """Status 404."""


class Forbidden(VaultError):  # noqa: N818  # hvac's name
    """Status 403."""


class FakeTransit:
    """Does what Transit does with an aes256-gcm96 key."""

    def __init__(self) -> None:
        self.versions: list[bytes] = [b"\x01" * 32]
        self.oldest = 1
        self.failure: VaultError | None = None
        self.answer: Mapping[str, Any] | None = None
        self.contexts: list[str | None] = []
        self.is_before_1_13 = False

    def read_key(self, name: str, *, mount_point: str) -> Mapping[str, Any]:
        """Tell the latest version."""
        self._check(name, mount_point)
        return self.answer or {"data": {"latest_version": len(self.versions)}}

    def encrypt_data(
        self,
        name: str,
        *,
        plaintext: str,
        associated_data: str,
        context: str | None,
        mount_point: str,
    ) -> Mapping[str, Any]:
        """Encrypt with the latest version."""
        self._check(name, mount_point)
        self.contexts.append(context)
        number = len(self.versions)
        nonce = number.to_bytes(12, "big")
        content = nonce + AESGCM(self.versions[-1]).encrypt(
            nonce, base64.b64decode(plaintext), self._associated(associated_data)
        )
        text = f"vault:v{number}:{base64.b64encode(content).decode()}"
        return self.answer or {"data": {"ciphertext": text, "key_version": number}}

    def decrypt_data(
        self,
        name: str,
        *,
        ciphertext: str,
        associated_data: str,
        context: str | None,
        mount_point: str,
    ) -> Mapping[str, Any]:
        """Decrypt with the version that the text names."""
        self._check(name, mount_point)
        self.contexts.append(context)
        _, version, text = ciphertext.split(":")
        number = int(version[1:])
        if number < self.oldest:
            reason = "ciphertext or signature version is disallowed by policy"
            raise InvalidRequest(reason)
        content = base64.b64decode(text)
        try:
            plaintext = AESGCM(self.versions[number - 1]).decrypt(
                content[:12], content[12:], self._associated(associated_data)
            )
        except InvalidTag:
            reason = "cipher: message authentication failed"
            raise InvalidRequest(reason) from None
        return self.answer or {"data": {"plaintext": base64.b64encode(plaintext).decode()}}

    def _associated(self, text: str) -> bytes:
        return b"" if self.is_before_1_13 else base64.b64decode(text)

    def _check(self, name: str, mount: str) -> None:
        if self.failure is not None:
            raise self.failure
        if (name, mount) != ("penstock", "secrets/transit"):
            raise InvalidPath


def keeper(
    transit: FakeTransit, *, key: str = "penstock", is_derived: bool = False
) -> VaultTransitKek:
    """Return a KEK on a fake engine."""
    return VaultTransitKek(
        transit, key=key, mount="secrets/transit", is_derived=is_derived, failures=(VaultError,)
    )


def test_a_key_comes_back() -> None:
    """What was wrapped in Vault unwraps there, and its version is told."""
    transit = FakeTransit()
    kek = keeper(transit)
    wrapped = kek.wrap(KEY, ACME)
    assert wrapped.kek == kek.current() == KekVersion("vault:secrets/transit/penstock", 1)
    assert wrapped.ciphertext.startswith(b"vault:v1:")
    assert kek.unwrap(wrapped, ACME) == KEY
    assert transit.contexts == [None, None]


def test_rewrapping_follows_vaults_rotation() -> None:
    """After Vault rotated its key, a rewrapped key opens though the old version is forbidden."""
    transit = FakeTransit()
    kek = keeper(transit)
    wrapped = kek.wrap(KEY, ACME)
    transit.versions.append(b"\x02" * 32)
    fresh = rewrap(wrapped, ACME, kek)
    assert (wrapped.kek.number, fresh.kek.number) == (1, 2)
    transit.oldest = 2
    assert kek.unwrap(fresh, ACME) == KEY
    with pytest.raises(UnwrapError, match="min_decryption_version"):
        kek.unwrap(wrapped, ACME)


@pytest.mark.parametrize("is_before_1_13", [False, True])
def test_a_key_does_not_open_for_another_owner(*, is_before_1_13: bool) -> None:
    """Another organization is refused, also by a Vault that does not know associated data."""
    transit = FakeTransit()
    transit.is_before_1_13 = is_before_1_13
    kek = keeper(transit)
    wrapped = kek.wrap(KEY, ACME)
    assert kek.unwrap(wrapped, ACME) == KEY
    with pytest.raises(UnwrapError, match="belongs to another owner"):
        kek.unwrap(wrapped, OTHER)


def test_a_derived_key_gets_its_context() -> None:
    """For a key with derivation the owner goes along as context, too."""
    transit = FakeTransit()
    kek = keeper(transit, is_derived=True)
    assert kek.unwrap(kek.wrap(KEY, ACME), ACME) == KEY
    first, second = transit.contexts
    assert first == second
    assert b"org_acme" in base64.b64decode(first or "")


def test_a_key_of_another_keeper_is_not_sent_to_vault() -> None:
    """What another KEK wrapped is refused here, without a request."""
    transit = FakeTransit()
    transit.failure = VaultError("must not be asked")
    wrapped = WrappedKey(KekVersion("vault:transit/other", 1), b"vault:v1:AAAA")
    with pytest.raises(UnwrapError, match="vault:transit/other, which is not configured"):
        keeper(transit).unwrap(wrapped, ACME)


def test_a_slip_in_the_keys_name_makes_no_key() -> None:
    """A key that Vault does not have is an error before anything is wrapped."""
    transit = FakeTransit()
    with pytest.raises(KekUnavailableError, match=r"penstok cannot be used: InvalidPath"):
        keeper(transit, key="penstok").wrap(KEY, ACME)
    assert transit.contexts == []


@pytest.mark.parametrize(
    "failure",
    [
        VaultError("permission denied"),
        VaultError("Vault is sealed"),
        InvalidRequest("encryption key not found"),
    ],
)
def test_trouble_with_vault_says_nothing_about_keys(failure: VaultError) -> None:
    """A Vault that is away, sealed or refuses the token is unavailable, and not quoted."""
    transit = FakeTransit()
    kek = keeper(transit)
    wrapped = kek.wrap(KEY, ACME)
    transit.failure = failure
    for call in (kek.current, lambda: kek.wrap(KEY, ACME), lambda: kek.unwrap(wrapped, ACME)):
        with pytest.raises(KekUnavailableError, match="cannot be used") as caught:
            call()
        assert "canary" not in str(caught.value)
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("failure", "is_refused"),
    [
        (VaultError("Vault is sealed"), False),
        (Forbidden("permission denied"), True),
        (InvalidPath(), True),
        (InvalidRequest("encryption key not found"), True),
    ],
)
def test_a_refusal_is_told_from_being_away(failure: VaultError, *, is_refused: bool) -> None:
    """Whether the key was taken from us, or Vault is only out of reach, are two errors."""
    transit = FakeTransit()
    kek = keeper(transit)
    wrapped = kek.wrap(KEY, ACME)
    transit.failure = failure
    with pytest.raises(KekUnavailableError) as caught:
        kek.unwrap(wrapped, ACME)
    assert isinstance(caught.value, KekRefusedError) is is_refused


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"data": None},
        {"data": {"latest_version": "1", "ciphertext": "x", "plaintext": "&"}},
        {"data": {"latest_version": 1, "ciphertext": None, "plaintext": None}},
    ],
)
def test_answers_that_are_none_of_vaults_are_refused(answer: Mapping[str, Any]) -> None:
    """A proxy's page or a half answer is an error, not a key."""
    transit = FakeTransit()
    kek = keeper(transit)
    wrapped = kek.wrap(KEY, ACME)
    transit.answer = {"anything": 1, **answer}
    for call in (lambda: kek.wrap(KEY, ACME), lambda: kek.unwrap(wrapped, ACME)):
        with pytest.raises(KekUnavailableError, match="none of Vault's"):
            call()


def test_a_foreign_plaintext_is_not_taken_for_a_key() -> None:
    """What others encrypted with the same Transit key does not become a data key."""
    transit = FakeTransit()
    kek = keeper(transit)
    wrapped = kek.wrap(KEY, ACME)
    transit.answer = {"data": {"plaintext": base64.b64encode(b"x" * 64).decode()}}
    with pytest.raises(UnwrapError, match="does not open"):
        kek.unwrap(wrapped, ACME)


def test_the_package_is_optional() -> None:
    """Without hvac, the error names what to install."""
    if importlib.util.find_spec("hvac") is not None:
        pytest.skip("hvac is installed here")
    with pytest.raises(KekUnavailableError, match=r"install penstock\[vault\]"):
        connect_vault("https://127.0.0.1:1", token="t", key="penstock")
