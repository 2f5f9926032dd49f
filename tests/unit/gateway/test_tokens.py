"""What references to credentials stand for."""

import pytest

from penstock.gateway.tokens import Tokens
from penstock.kit.secrets import SecretUnavailableError


def test_opened_tokens_replace_those_before() -> None:
    """What the agent sent last is what there is."""
    tokens = Tokens()
    tokens.replace({"crd_a": "sk-a", "crd_b": "sk-b"})
    assert tokens.authorization("credential:crd_a") == b"authorization: Bearer sk-a\r\n"
    tokens.replace({"crd_b": "sk-new"})
    assert tokens.authorization("credential:crd_b") == b"authorization: Bearer sk-new\r\n"
    with pytest.raises(SecretUnavailableError, match="credential:crd_a"):
        tokens.authorization("credential:crd_a")


def test_no_reference_is_no_header() -> None:
    """An upstream that wants no credential is shown none."""
    assert Tokens().authorization(None) == b""


@pytest.mark.parametrize("secret", ["", "a b", "sk-1\r\nx-evil: 1", "sk-\u00e9", "sk-\x00"])
def test_an_opened_secret_must_be_a_token(secret: str) -> None:
    """What could not stand in one header line is refused, and not repeated."""
    tokens = Tokens()
    tokens.replace({"crd_a": secret})
    with pytest.raises(SecretUnavailableError) as raised:
        tokens.authorization("credential:crd_a")
    assert "sk-" not in str(raised.value)


def test_tokens_are_never_shown() -> None:
    """Neither text nor attributes that a log may print hold a token."""
    tokens = Tokens()
    tokens.replace({"crd_a": "sk-secret"})
    assert "sk-secret" not in repr(tokens) + str(tokens) + f"{tokens}"
