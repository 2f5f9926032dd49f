"""Credentials and the data keys (DEK) that encrypt them, as they are stored and as they are used.

The platform's own credentials belong to no organization: `organization_id` is None.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypedDict

from penstock.kit.envelope import Sealed, SecretBytes
from penstock.kit.kek.model import WrappedKey


class CredentialState(StrEnum):
    """Whether a credential may be used."""

    ACTIVE = "active"
    NEEDS_RECONFIGURATION = "needs_reconfiguration"
    """It does not open; its owner has to set it again. Using it fails closed."""
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialIdentity:
    """What a credential belongs to: bound into its ciphertext, so none of it can be exchanged."""

    organization_id: str | None
    credential_id: str
    provider: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedCredential:
    """A credential as it is stored."""

    identity: CredentialIdentity
    dek_id: str
    """The data key that opens it; one of its organization's."""
    aad_version: int
    """How its identity was bound into it."""
    sealed: Sealed

    @property
    def id(self) -> str:
        """The credential's id."""
        return self.identity.credential_id


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredDek:
    """A data key as it is stored: wrapped."""

    id: str
    organization_id: str | None
    wrapped: WrappedKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Dek:
    """A data key in clear, in memory only."""

    id: str
    organization_id: str | None
    key: SecretBytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """What is told of a credential: everything but the secret."""

    id: str
    organization_id: str | None
    name: str
    provider: str
    upstream_id: str | None
    """Where an organization's own credential is used instead of the upstream's."""
    state: str
    created_by: str
    version: int
    created_at_us: int
    updated_at_us: int

    @property
    def identity(self) -> CredentialIdentity:
        """What its ciphertext is bound to."""
        return CredentialIdentity(
            organization_id=self.organization_id, credential_id=self.id, provider=self.provider
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class NewCredential:
    """A credential that is to be."""

    name: str
    provider: str
    secret: str = field(repr=False)
    organization_id: str | None = None
    upstream_id: str | None = None


class CredentialChanges(TypedDict, total=False):
    """What of a credential is to change."""

    name: str
    secret: str


@dataclass(frozen=True, slots=True)
class KeptCredential:
    """A credential as it is stored, with the data key that opens it."""

    credential: SealedCredential
    dek: StoredDek

    @property
    def id(self) -> str:
        """The credential's id."""
        return self.credential.id
