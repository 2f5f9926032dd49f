"""How a Kafka cluster is reached: settings that say half a thing, or a password, are refused."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from penstock.contract.kafka import KafkaSettings, client_options
from penstock.kit.secrets import SecretUnavailableError

SERVERS = "kafka-1:9092,kafka-2:9092"


def _settings(**members: Any) -> KafkaSettings:
    return msgspec.convert({"servers": SERVERS, **members}, KafkaSettings)


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"servers": "kafka-1"}, "servers"),
        ({"servers": "kafka://kafka-1:9092"}, "servers"),
        ({"servers": "user:word@kafka-1:9092"}, "servers"),
        ({"user": "penstock"}, "go together"),
        ({"password": "env:KAFKA"}, "go together"),
        ({"user": "penstock", "password": "a password itself"}, "password"),
        ({"tls": True, "cert": "cert.pem"}, "go together"),
        ({"ca": "ca.pem"}, "for tls"),
        ({"cert": "cert.pem", "key": "key.pem"}, "for tls"),
        ({"user": "penstock", "password": "env:KAFKA", "mechanism": "PLAIN"}, "without tls"),
        ({"mechanism": "GSSAPI"}, "mechanism"),
        ({"topic": "other"}, "unknown field"),
    ],
)
def test_bad_settings_are_refused(members: dict[str, Any], reason: str) -> None:
    """The refusal names what is wrong."""
    with pytest.raises(msgspec.ValidationError, match=reason):
        _settings(**members)


def test_a_client_is_told_how_to_log_in(tmp_path: Path) -> None:
    """The password is read where the reference leads; its kind follows from TLS and user."""
    (tmp_path / "word").write_text("open sesame\n")
    members = {"user": "penstock", "password": f"file:{tmp_path / 'word'}"}
    assert client_options(_settings(**members)) == {
        "bootstrap_servers": ["kafka-1:9092", "kafka-2:9092"],
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "penstock",
        "sasl_plain_password": "open sesame",
    }
    secured = client_options(_settings(**members, tls=True, mechanism="PLAIN"))
    assert (secured["security_protocol"], secured["sasl_mechanism"]) == ("SASL_SSL", "PLAIN")
    assert secured["ssl_context"].check_hostname
    assert client_options(_settings(tls=True))["security_protocol"] == "SSL"
    assert client_options(_settings())["security_protocol"] == "PLAINTEXT"


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    """A password or a certificate that is not there stops the start."""
    nowhere = str(tmp_path / "nowhere")
    with pytest.raises(SecretUnavailableError, match="nowhere"):
        client_options(_settings(user="penstock", password=f"file:{nowhere}"))
    with pytest.raises(FileNotFoundError):
        client_options(_settings(tls=True, ca=nowhere))
