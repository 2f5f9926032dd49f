"""Tables of the catalog: what can be asked for and where requests go, and who may use it."""

from typing import Any

from sqlalchemy import ForeignKey, ForeignKeyConstraint, Index, LargeBinary, text
from sqlalchemy.orm import Mapped, mapped_column

from penstock.storage.base import Base, Json, Microseconds, Versioned


def _unique(name: str, *columns: str, where: str) -> Index:
    condition = text(where)
    return Index(name, *columns, unique=True, sqlite_where=condition, postgresql_where=condition)


class Deks(Base):
    """Data keys, wrapped. Old ones stay until nothing is encrypted with them any more."""

    __tablename__ = "deks"
    __table_args__ = (
        _unique(
            "uq_deks_active_platform",
            "is_active",
            where="organization_id IS NULL AND is_active",
        ),
        _unique("uq_deks_active_organization", "organization_id", where="is_active"),
        Index(None, "kek_uri", "kek_version"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    organization_id: Mapped[str | None] = mapped_column(ForeignKey("organizations.id"))
    kek_uri: Mapped[str]
    kek_version: Mapped[int]
    wrapped: Mapped[bytes] = mapped_column(LargeBinary)
    is_active: Mapped[bool]
    """Whether new secrets of its owner are encrypted with it."""
    created_at: Mapped[Microseconds]


class Credentials(Versioned, Base):
    """Credentials of upstreams, encrypted; the platform's belong to no organization."""

    __tablename__ = "credentials"
    __table_args__ = (
        _unique("uq_credentials_name", "name", where="organization_id IS NULL"),
        _unique(
            "uq_credentials_organization_id_name",
            "organization_id",
            "name",
            where="organization_id IS NOT NULL",
        ),
        _unique(
            "uq_credentials_organization_id_upstream_id",
            "organization_id",
            "upstream_id",
            where="upstream_id IS NOT NULL",
        ),
        Index(None, "dek_id"),
        Index(None, "created_at", "id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    organization_id: Mapped[str | None] = mapped_column(ForeignKey("organizations.id"))
    name: Mapped[str]
    provider: Mapped[str]
    upstream_id: Mapped[str | None] = mapped_column(ForeignKey("upstreams.id"))
    """Where an organization's own credential is used instead of the upstream's."""
    state: Mapped[str]
    dek_id: Mapped[str] = mapped_column(ForeignKey("deks.id"))
    aad_version: Mapped[int]
    nonce: Mapped[bytes] = mapped_column(LargeBinary)
    ciphertext: Mapped[bytes] = mapped_column(LargeBinary)
    created_by: Mapped[str]


class KeyRotations(Base):
    """How far the rotations of key-encryption keys and data keys came."""

    __tablename__ = "key_rotations"

    id: Mapped[str] = mapped_column(primary_key=True)
    """`kek`, or `dek:` and the organization, or `dek:` alone for the platform."""
    cursor: Mapped[str | None]
    passes: Mapped[int]
    renewed: Mapped[int]
    unreadable: Mapped[int]
    is_finished: Mapped[bool]
    updated_at: Mapped[Microseconds]


class Upstreams(Versioned, Base):
    """Sets of interchangeable endpoints."""

    __tablename__ = "upstreams"
    __table_args__ = (
        Index("uq_upstreams_name", "name", unique=True),
        Index(None, "created_at", "id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    provider: Mapped[str]
    endpoints: Mapped[list[str]] = mapped_column(Json)
    """URLs, `scheme://host:port/prefix`; none where they are found."""
    discover: Mapped[str | None]
    """Where they are found."""
    region: Mapped[str | None]
    data_class: Mapped[str | None]
    credential_id: Mapped[str | None]
    """One of the platform's credentials. No foreign key: credentials name upstreams, too."""
    credential_reference: Mapped[str | None]
    """`env:NAME` or `file:PATH` on each node, instead of a credential that is kept here."""
    forward_headers: Mapped[list[str]] = mapped_column(Json)
    timeouts: Mapped[dict[str, Any]] = mapped_column(Json)
    """Members of `contract.snapshot.Timeouts` that differ from its defaults."""
    max_connections: Mapped[int]
    tls_ca_file: Mapped[str | None]
    takes_priority: Mapped[bool] = mapped_column(server_default=text("false"))
    kv_events: Mapped[str | None]
    is_disabled: Mapped[bool]


class EngineOperations(Versioned, Base):
    """What operators want engines to do, and what came of it."""

    __tablename__ = "engine_operations"
    __table_args__ = (Index(None, "created_at", "id"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    upstream_id: Mapped[str]
    """No foreign key: it is told of upstreams that are gone, too."""
    upstream: Mapped[str]
    operation: Mapped[str]
    arguments: Mapped[dict[str, str]] = mapped_column(Json)
    endpoint: Mapped[str | None]
    node_id: Mapped[str | None]
    claimed_at: Mapped[Microseconds | None]
    finished_at: Mapped[Microseconds | None]
    outcomes: Mapped[list[dict[str, Any]]] = mapped_column(Json)
    fault: Mapped[str | None]


class RegistrationTokens(Versioned, Base):
    """What engines of an upstream register with, as keyed hashes."""

    __tablename__ = "registration_tokens"
    __table_args__ = (Index(None, "created_at", "id"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    upstream_id: Mapped[str] = mapped_column(ForeignKey("upstreams.id", ondelete="CASCADE"))
    mac: Mapped[bytes] = mapped_column(LargeBinary)


class Registrations(Versioned, Base):
    """Endpoints that engines registered, with leases."""

    __tablename__ = "registrations"
    __table_args__ = (
        Index("uq_registrations_upstream_id_url", "upstream_id", "url", unique=True),
        Index(None, "created_at", "id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    upstream_id: Mapped[str] = mapped_column(ForeignKey("upstreams.id", ondelete="CASCADE"))
    url: Mapped[str]
    ttl_s: Mapped[int]
    weight: Mapped[int]
    engine: Mapped[str]
    expires_at: Mapped[Microseconds]
    lapsed_at: Mapped[Microseconds | None]


class Deployments(Versioned, Base):
    """One model on one upstream each."""

    __tablename__ = "deployments"
    __table_args__ = (
        Index("uq_deployments_name", "name", unique=True),
        Index(None, "created_at", "id"),
        Index(None, "upstream_id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    upstream_id: Mapped[str] = mapped_column(ForeignKey("upstreams.id"))
    model: Mapped[str]
    credential_id: Mapped[str | None] = mapped_column(ForeignKey("credentials.id"))
    continuous_usage: Mapped[bool]
    max_output_tokens: Mapped[int]
    adapter_of: Mapped[str | None]
    adapter_path: Mapped[str | None]
    tokenizer: Mapped[str | None]
    is_disabled: Mapped[bool]


class Routes(Versioned, Base):
    """Where the requests of aliases go."""

    __tablename__ = "routes"
    __table_args__ = (
        Index("uq_routes_name", "name", unique=True),
        Index(None, "created_at", "id"),
        Index(None, "fallback_id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    fallback_id: Mapped[str | None] = mapped_column(ForeignKey("routes.id"))


class RouteChoices(Base):
    """The deployments of a route, in their order."""

    __tablename__ = "route_choices"
    __table_args__ = (Index(None, "deployment_id"),)

    route_id: Mapped[str] = mapped_column(ForeignKey("routes.id"), primary_key=True)
    deployment_id: Mapped[str] = mapped_column(ForeignKey("deployments.id"), primary_key=True)
    position: Mapped[int]
    weight: Mapped[int]


class Aliases(Versioned, Base):
    """Public model names."""

    __tablename__ = "aliases"
    __table_args__ = (
        Index("uq_aliases_name", "name", unique=True),
        Index(None, "created_at", "id"),
        Index(None, "route_id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    route_id: Mapped[str] = mapped_column(ForeignKey("routes.id"))
    is_open: Mapped[bool]
    """Whether every key may use it; else those whose project or organization has a grant."""


class Grants(Versioned, Base):
    """Which organization, or which project alone, may use an alias that is not open to all."""

    __tablename__ = "grants"
    __table_args__ = (
        ForeignKeyConstraint(
            ["organization_id", "project_id"], ["projects.organization_id", "projects.id"]
        ),
        _unique(
            "uq_grants_alias_id_organization_id",
            "alias_id",
            "organization_id",
            where="project_id IS NULL",
        ),
        _unique(
            "uq_grants_alias_id_project_id",
            "alias_id",
            "project_id",
            where="project_id IS NOT NULL",
        ),
        Index(None, "organization_id", "created_at", "id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    alias_id: Mapped[str] = mapped_column(ForeignKey("aliases.id"))
    organization_id: Mapped[str] = mapped_column(ForeignKey("organizations.id"))
    project_id: Mapped[str | None]


class AppliedObjects(Base):
    """What `apply` made, and for which set of files: only that may it remove again."""

    __tablename__ = "applied_objects"

    set_name: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    object_id: Mapped[str] = mapped_column(primary_key=True)
