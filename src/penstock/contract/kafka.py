"""How a Kafka cluster is reached, by nodes and control planes alike."""

import ssl
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from penstock.kit.secrets import resolve_secret

_SERVER = r"[A-Za-z0-9._-]+:[0-9]{1,5}"
_Path = Annotated[str, Meta(min_length=1)]


class KafkaSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A Kafka cluster that carries usage."""

    servers: Annotated[str, Meta(pattern=f"^{_SERVER}(,{_SERVER})*$")]
    """Some of its servers, `host:9092`, with commas between them."""
    tls: bool = False
    """Speak TLS."""
    ca: _Path | None = None
    """PEM file with who may sign the servers' certificates; whom the machine trusts when None."""
    cert: _Path | None = None
    """PEM file with our own certificate, where the servers ask for one."""
    key: _Path | None = None
    """PEM file with its key."""
    user: Annotated[str, Meta(min_length=1)] | None = None
    """Who we are, where the servers ask by SASL."""
    password: Annotated[str, Meta(pattern=r"^(env|file):")] | None = None
    """Where the user's password is: `env:NAME` or `file:PATH`."""
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    """How the password is shown."""

    def __post_init__(self) -> None:
        """Refuse settings that say half of something, or show a password to everybody."""
        if (self.user is None) != (self.password is None):
            message = "user and password go together"
            raise ValueError(message)
        if (self.cert is None) != (self.key is None):
            message = "cert and key go together"
            raise ValueError(message)
        if not self.tls and (self.ca or self.cert):
            message = "ca, cert and key are for tls"
            raise ValueError(message)
        if not self.tls and self.user and self.mechanism == "PLAIN":
            message = "PLAIN shows the password to everybody without tls"
            raise ValueError(message)


def client_options(settings: KafkaSettings) -> dict[str, Any]:
    """Return what clients of `aiokafka` are made with.

    Raises:
        SecretUnavailableError: The password cannot be read.
        OSError: A PEM file cannot be read, or is none.
    """
    protocol = "SSL" if settings.tls else "PLAINTEXT"
    options: dict[str, Any] = {"bootstrap_servers": settings.servers.split(",")}
    if settings.tls:
        context = ssl.create_default_context(cafile=settings.ca)
        if settings.cert is not None:
            context.load_cert_chain(settings.cert, settings.key)
        options["ssl_context"] = context
    if settings.user is not None and settings.password is not None:
        protocol = f"SASL_{protocol}"
        options |= {
            "sasl_mechanism": settings.mechanism,
            "sasl_plain_username": settings.user,
            "sasl_plain_password": resolve_secret(settings.password),
        }
    return options | {"security_protocol": protocol}
