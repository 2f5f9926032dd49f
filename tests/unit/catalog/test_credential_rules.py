"""Credentials of upstreams: encrypted, opened, refused, and kept out of every message."""

from dataclasses import replace
from pathlib import Path

import pytest

from penstock.catalog.credentials.deks import (
    DekCache,
    create_dek,
    open_dek,
    rewrap_dek,
    wrapping_context,
)
from penstock.catalog.credentials.errors import (
    CredentialInvalidError,
    CredentialUnreadableError,
    KeysUnavailableError,
)
from penstock.catalog.credentials.model import CredentialIdentity, Dek, SealedCredential
from penstock.catalog.credentials.rules import (
    MAX_CREDENTIAL_CHARS,
    associated_data,
    check_credential,
    open_credential,
    reseal_credential,
    seal_credential,
)
from penstock.kit.clock import ManualClock
from penstock.kit.envelope import SecretBytes
from penstock.kit.kek.file import (
    FileKek,
    add_key_version,
    create_key_file,
    remove_key_version,
)
from penstock.kit.kek.model import Context, WrappedKey

ACME, OTHER = "org_acme", "org_other"
IDENTITY = CredentialIdentity(organization_id=ACME, credential_id="crd_1", provider="vllm")
TOKEN = SecretBytes(b"sk-canary-0123456789")


class CountingKek(FileKek):
    """Counts how often it is asked to unwrap."""

    unwrapped = 0

    def unwrap(self, wrapped: WrappedKey, context: Context) -> SecretBytes:
        """See `Kek`."""
        self.unwrapped += 1
        return super().unwrap(wrapped, context)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the path of a new key file."""
    create_key_file(tmp_path / "kek")
    return tmp_path / "kek"


def dek(name: str = "dek_1", organization_id: str | None = ACME, fill: int = 1) -> Dek:
    """Return a data key."""
    return Dek(id=name, organization_id=organization_id, key=SecretBytes(bytes([fill]) * 32))


def test_a_credential_comes_back() -> None:
    """A credential opens with its data key, and its record says which one that is."""
    stored = seal_credential(IDENTITY, TOKEN, dek())
    assert (stored.id, stored.dek_id, stored.aad_version) == ("crd_1", "dek_1", 1)
    assert open_credential(stored, dek()) == TOKEN
    assert TOKEN.reveal() not in stored.sealed.ciphertext


@pytest.mark.parametrize("organization_id", [ACME, None])
def test_the_form_of_the_associated_data_is_fixed(organization_id: str | None) -> None:
    """Version 1 of the associated data never changes: stored ciphertexts depend on it."""
    identity = replace(IDENTITY, organization_id=organization_id)
    owner = b"\x00" if organization_id is None else b"\x01\x00\x00\x00\x08org_acme"
    assert associated_data(identity, 1) == (
        b"penstock\x01\x00\x00\x00\x0acredential" + owner + b"\x01\x00\x00\x00\x05crd_1"
        b"\x01\x00\x00\x00\x04vllm\x01\x00\x00\x00\x011"
    )


def test_the_platforms_context_is_nobodys_else() -> None:
    """No organization's name gives the context of the platform's own data keys."""
    assert wrapping_context(None, "dek_1") == {"scope": "platform", "dek": "dek_1"}
    assert wrapping_context("platform", "dek_1") == {"organization": "platform", "dek": "dek_1"}


@pytest.mark.parametrize(
    "identity",
    [
        replace(IDENTITY, credential_id="crd_2"),
        replace(IDENTITY, provider="openai_compatible"),
        replace(IDENTITY, organization_id=None),
        replace(IDENTITY, organization_id=OTHER),
    ],
)
def test_a_ciphertext_in_another_record_does_not_open(identity: CredentialIdentity) -> None:
    """A ciphertext that was moved to another credential, provider or organization is useless."""
    moved = replace(seal_credential(IDENTITY, TOKEN, dek()), identity=identity)
    with pytest.raises(CredentialUnreadableError) as caught:
        open_credential(moved, dek(organization_id=identity.organization_id))
    assert identity.credential_id in str(caught.value)


def test_another_data_key_does_not_open_it() -> None:
    """A data key with another id, key or organization is refused."""
    stored = seal_credential(IDENTITY, TOKEN, dek())
    for wrong in (dek("dek_2"), dek(fill=2), dek(organization_id=OTHER), dek(organization_id=None)):
        with pytest.raises(CredentialUnreadableError):
            open_credential(stored, wrong)


def test_nothing_is_encrypted_under_a_foreign_data_key() -> None:
    """Encrypting under another organization's data key is refused as a bug."""
    with pytest.raises(ValueError, match="is not of the organization"):
        seal_credential(IDENTITY, TOKEN, dek(organization_id=OTHER))


def test_a_newer_form_is_told_from_a_broken_one() -> None:
    """A record of a newer version of Penstock is refused as such."""
    stored = replace(seal_credential(IDENTITY, TOKEN, dek()), aad_version=2)
    with pytest.raises(CredentialUnreadableError, match="encrypted by a newer version"):
        open_credential(stored, dek())


def test_re_encrypting_moves_to_the_new_key() -> None:
    """After re-encryption the new data key opens the credential and the old one does not."""
    old, new = dek(), dek("dek_2", fill=2)
    stored = seal_credential(IDENTITY, TOKEN, old)
    fresh = reseal_credential(stored, old, new)
    assert fresh is not None
    assert fresh.dek_id == "dek_2"
    assert open_credential(fresh, new) == TOKEN
    assert reseal_credential(fresh, old, new) is None
    with pytest.raises(CredentialUnreadableError):
        open_credential(fresh, old)
    with pytest.raises(ValueError, match="is not of the organization"):
        reseal_credential(stored, old, dek("dek_3", OTHER))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("x" * (MAX_CREDENTIAL_CHARS + 1), "more than 16384 characters"),
        ("canary with space", "visible ASCII"),
        ("canary\r\nx-admin:1", "visible ASCII"),
        ("canary\u00e9", "visible ASCII"),
        ("canary\x00", "visible ASCII"),
    ],
)
def test_what_no_header_can_carry_is_refused(text: str, words: str) -> None:
    """A credential that could not be sent, or could smuggle a header, is refused and not shown."""
    with pytest.raises(CredentialInvalidError, match=words) as caught:
        check_credential(text)
    assert "canary" not in str(caught.value)


def test_a_good_credential_is_hidden_at_once() -> None:
    """A credential that passed the check does not show itself any more."""
    checked = check_credential("sk-canary-0123456789")
    assert checked == TOKEN
    stored: SealedCredential = seal_credential(IDENTITY, checked, dek())
    assert "canary" not in f"{checked!r} {stored!r} {dek()!r}"


def test_a_data_key_is_its_organizations(path: Path) -> None:
    """A stored data key opens for its organization, and not under another's name or id."""
    kek = FileKek(path)
    stored, made = create_dek("dek_1", ACME, kek)
    assert open_dek(stored, kek) == made
    assert made.key.reveal() not in stored.wrapped.ciphertext
    for wrong in (
        replace(stored, organization_id=OTHER),
        replace(stored, organization_id=None),
        replace(stored, id="dek_2"),
    ):
        with pytest.raises(CredentialUnreadableError, match=f"data key {wrong.id} does not open"):
            open_dek(wrong, kek)


def test_rewrapping_leaves_ciphertexts_alone(path: Path) -> None:
    """A rewrapped data key opens what it opened before, and the old KEK version may go."""
    kek = FileKek(path)
    stored, made = create_dek("dek_1", ACME, kek)
    credential = seal_credential(IDENTITY, TOKEN, made)
    assert rewrap_dek(stored, kek) is None
    add_key_version(path)
    fresh = rewrap_dek(stored, kek)
    assert fresh is not None
    remove_key_version(path, 1)
    assert open_credential(credential, open_dek(fresh, kek)) == TOKEN
    with pytest.raises(CredentialUnreadableError, match="version 1"):
        rewrap_dek(stored, kek)


def test_a_keeper_that_is_away_is_no_fault_of_the_record(path: Path) -> None:
    """Without the KEK, making, opening and rewrapping are to be tried again later."""
    kek = FileKek(path)
    stored, _ = create_dek("dek_1", ACME, kek)
    path.rename(path.with_name("elsewhere"))
    for call in (
        lambda: create_dek("dek_2", ACME, kek),
        lambda: open_dek(stored, kek),
        lambda: rewrap_dek(stored, kek),
    ):
        with pytest.raises(KeysUnavailableError, match="No such file") as caught:
            call()
        assert caught.value.error.retryable


def test_open_keys_are_kept_for_five_minutes(path: Path) -> None:
    """The KEK is asked once in five minutes for a data key, and again after that."""
    kek, clock = CountingKek(path), ManualClock()
    stored, made = create_dek("dek_1", ACME, kek)
    cache = DekCache(kek, clock)
    assert cache.open(stored) == cache.open(stored) == made
    clock.advance(299)
    cache.open(stored)
    assert kek.unwrapped == 1
    clock.advance(1)
    path.rename(path.with_name("elsewhere"))
    with pytest.raises(KeysUnavailableError):
        cache.open(stored)
    path.with_name("elsewhere").rename(path)
    assert cache.open(stored) == made


def test_kept_keys_are_bounded_and_can_be_forgotten(path: Path) -> None:
    """The least recently used data key goes first, and an organization's go at once."""
    kek = CountingKek(path)
    first, second, third = (create_dek(f"dek_{n}", f"org_{n}", kek)[0] for n in range(3))
    cache = DekCache(kek, ManualClock(), size=2)
    for stored in (first, second, first, third, first):
        cache.open(stored)
    assert kek.unwrapped == 3
    cache.open(second)
    assert kek.unwrapped == 4
    cache.forget("org_1")
    cache.open(first)
    assert kek.unwrapped == 4
    cache.open(second)
    assert kek.unwrapped == 5
