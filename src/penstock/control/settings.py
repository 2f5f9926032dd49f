"""How the control plane is started."""

from pathlib import Path
from typing import Literal

import msgspec

from penstock.contract.kafka import KafkaSettings
from penstock.kit.logs.setup import Form, LevelName
from penstock.kit.secrets import resolve_secret


class ControlSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of `python -m penstock.control '<these as JSON>'`."""

    data_dir: str
    """Data folder: `usage.db`, and `secrets/` with `node_token` and `admin_token`; both are made
    when they are missing."""
    host: str = "127.0.0.1"
    port: int = 8081
    database: str | None = None
    """Secret reference (`env:NAME` or `file:PATH`) of PostgreSQL's address,
    `postgresql://user@host/name`; the SQLite file when None. The user must be no superuser."""
    kek: str | None = None
    """What wraps the data keys of credentials: `file:PATH`, `vault:MOUNT/KEY` or `aws:KEY`; several
    with commas between them while data keys move, the first one wraps. `secrets/kek.json` when
    None. A key file that is missing is made when nothing is encrypted yet."""

    billing_currency: str = "EUR"
    """What organizations are charged in that have no billing terms of their own."""
    billing_grace_s: int = 172_800
    """How long after the end of a month its usage is waited for, before it can be billed."""
    nats_url: str | None = None
    """NATS server by which usage may come, besides by HTTP: `nats://host:4222`, `tls://` for TLS;
    several with commas between them; no password."""
    nats_password: str | None = None
    """Where its token is: `env:NAME` or `file:PATH`."""
    kafka: KafkaSettings | None = None
    """Kafka cluster by which usage may come, besides by HTTP."""
    secret_scanning_keys: str | None = None
    """File with the public keys of GitHub's secret scanning, as GitHub publishes them; only with
    one is there `/secret-scanning/github`."""
    secret_scanning_action: Literal["revoke", "disable"] = "revoke"  # noqa: S105 - a verb
    """What becomes of a key that was found in public."""
    provider_name: str = "Penstock"
    """What the platform is called in files for others: who provides it and sends the invoices."""
    log_format: Form = "auto"
    """How log lines look: `json`, `text`, or `auto`, which is text on a terminal and else JSON."""
    log_level: LevelName = "info"
    """What is logged at the start: this level and those above it."""

    @property
    def database_location(self) -> Path | str:
        """The SQLite file, or PostgreSQL's address.

        Raises:
            SecretUnavailableError: The reference leads nowhere.
        """
        return self.database_path if self.database is None else resolve_secret(self.database)

    @property
    def database_path(self) -> Path:
        """The SQLite file."""
        return Path(self.data_dir) / "usage.db"

    @property
    def secrets_folder(self) -> Path:
        """The folder with everything that must not be known."""
        return Path(self.data_dir) / "secrets"

    @property
    def node_token_path(self) -> Path:
        """The file with the token that nodes ship usage with."""
        return self.secrets_folder / "node_token"

    @property
    def kek_path(self) -> Path:
        """The key file when no other keeper is set."""
        return self.secrets_folder / "kek.json"

    @property
    def admin_token_path(self) -> Path:
        """The file with the token of the operator."""
        return self.secrets_folder / "admin_token"
