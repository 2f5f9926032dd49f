"""Encrypting, opening and re-encrypting one credential: pure, the nonce's randomness is given.

What no test may change: the associated data of a version. A new form is a new version.
"""

import secrets

from penstock.catalog.credentials.errors import CredentialInvalidError, CredentialUnreadableError
from penstock.catalog.credentials.model import CredentialIdentity, Dek, SealedCredential
from penstock.catalog.rules import is_header_safe
from penstock.kit.envelope import DecryptionError, RandomBytes, SecretBytes, bind, seal, unseal

AAD_VERSION = 1
"""Of new ciphertexts."""
MAX_CREDENTIAL_CHARS = 16_384


def check_credential(text: str) -> SecretBytes:
    """Return a credential that can be sent as a bearer token, hidden from logs from here on.

    Raises:
        CredentialInvalidError: It is empty, too long or no header could carry it.
    """
    if not text:
        message = "the credential is empty"
        raise CredentialInvalidError(message)
    if len(text) > MAX_CREDENTIAL_CHARS:
        message = f"the credential has more than {MAX_CREDENTIAL_CHARS} characters"
        raise CredentialInvalidError(message)
    if not is_header_safe(text):
        message = "the credential holds something else than visible ASCII; send the token alone"
        raise CredentialInvalidError(message)
    return SecretBytes(text.encode())


def associated_data(identity: CredentialIdentity, aad_version: int) -> bytes:
    """Return what binds a ciphertext to the credential that it is of.

    Raises:
        CredentialUnreadableError: The version is not known: a newer Penstock wrote it.
    """
    if aad_version != AAD_VERSION:
        message = (
            f"credential {identity.credential_id} was encrypted by a newer version "
            f"(associated data {aad_version})"
        )
        raise CredentialUnreadableError(message)
    return bind(
        "credential",
        identity.organization_id,
        identity.credential_id,
        identity.provider,
        str(aad_version),
    )


def seal_credential(
    identity: CredentialIdentity,
    credential: SecretBytes,
    dek: Dek,
    *,
    random_bytes: RandomBytes = secrets.token_bytes,
) -> SealedCredential:
    """Encrypt a credential under a data key of its own organization.

    Raises:
        ValueError: The data key is another organization's: a bug of the caller.
    """
    if dek.organization_id != identity.organization_id:
        message = f"data key {dek.id} is not of the organization of {identity.credential_id}"
        raise ValueError(message)
    associated = associated_data(identity, AAD_VERSION)
    return SealedCredential(
        identity=identity,
        dek_id=dek.id,
        aad_version=AAD_VERSION,
        sealed=seal(dek.key, credential, associated, random_bytes),
    )


def open_credential(stored: SealedCredential, dek: Dek) -> SecretBytes:
    """Return a credential in clear, for use in memory only.

    Raises:
        CredentialUnreadableError: It does not open with this key for this organization,
            credential and provider.
    """
    associated = associated_data(stored.identity, stored.aad_version)
    if dek.id != stored.dek_id or dek.organization_id != stored.identity.organization_id:
        message = f"credential {stored.id} was encrypted under another data key than {dek.id}"
        raise CredentialUnreadableError(message)
    try:
        return unseal(dek.key, stored.sealed, associated)
    except DecryptionError as error:
        message = f"credential {stored.id} does not open with data key {dek.id}: {error}"
        raise CredentialUnreadableError(message) from None


def reseal_credential(
    stored: SealedCredential,
    old: Dek,
    new: Dek,
    *,
    random_bytes: RandomBytes = secrets.token_bytes,
) -> SealedCredential | None:
    """Return the same credential under a newer data key, or None when it is under that already.

    The new ciphertext is opened once before it is returned, so the old one may be thrown away.

    Raises:
        CredentialUnreadableError: The old ciphertext does not open.
        ValueError: The new data key is another organization's.
    """
    if stored.dek_id == new.id and stored.aad_version == AAD_VERSION:
        return None
    credential = open_credential(stored, old)
    fresh = seal_credential(stored.identity, credential, new, random_bytes=random_bytes)
    if open_credential(fresh, new) != credential:
        message = f"credential {stored.id} came back changed; nothing was stored"
        raise CredentialUnreadableError(message)
    return fresh
