"""The KEK in AWS KMS, against a fake of the part of boto3 that is used."""

import importlib.util
import json
from collections.abc import Mapping
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from penstock.kit.envelope import SecretBytes
from penstock.kit.kek.aws import AwsKmsKek, connect_aws_kms
from penstock.kit.kek.model import (
    KekRefusedError,
    KekUnavailableError,
    KekVersion,
    UnwrapError,
    WrappedKey,
    rewrap,
)

ARN = "arn:aws:kms:eu-central-1:111122223333:key/"
ACME = {"organization": "org_acme", "dek": "dek_1"}
KEY = SecretBytes(b"canary-canary-canary-canary-cana")


class ClientError(Exception):
    """As botocore's: the code is in its response."""

    def __init__(self, code: str) -> None:
        super().__init__(f"{code} with canary")
        self.response = {"Error": {"Code": code, "Message": "canary"}}


class FakeKms:
    """Does what KMS does with symmetric keys."""

    def __init__(self) -> None:
        self.keys = {ARN + "one": b"\x01" * 32, ARN + "two": b"\x02" * 32}
        self.alias = ARN + "one"
        self.asked: list[str] = []
        self.failure: Exception | None = None
        self.answer: Mapping[str, Any] | None = None

    def describe_key(self, *, KeyId: str) -> Mapping[str, Any]:  # noqa: N803
        """Name the key."""
        return self.answer or {"KeyMetadata": {"Arn": self._arn("describe", KeyId)}}

    def encrypt(
        self,
        *,
        KeyId: str,  # noqa: N803
        Plaintext: bytes,  # noqa: N803
        EncryptionContext: dict[str, str],  # noqa: N803
    ) -> Mapping[str, Any]:
        """Encrypt, bound to the context."""
        arn = self._arn("encrypt", KeyId)
        associated = json.dumps(EncryptionContext, sort_keys=True).encode()
        blob = AESGCM(self.keys[arn]).encrypt(bytes(12), Plaintext, associated)
        return self.answer or {"KeyId": arn, "CiphertextBlob": blob}

    def decrypt(
        self,
        *,
        KeyId: str,  # noqa: N803
        CiphertextBlob: bytes,  # noqa: N803
        EncryptionContext: dict[str, str],  # noqa: N803
    ) -> Mapping[str, Any]:
        """Decrypt for the same context."""
        arn = self._arn("decrypt", KeyId)
        associated = json.dumps(EncryptionContext, sort_keys=True).encode()
        try:
            plaintext = AESGCM(self.keys[arn]).decrypt(bytes(12), CiphertextBlob, associated)
        except InvalidTag:
            code = "InvalidCiphertextException"
            raise ClientError(code) from None
        return self.answer or {"KeyId": arn, "Plaintext": plaintext}

    def _arn(self, operation: str, key_id: str) -> str:
        if self.failure is not None:
            raise self.failure
        arn = self.alias if key_id == "alias/penstock" else key_id
        self.asked.append(f"{operation} {arn.removeprefix(ARN)}")
        return arn


def keeper(kms: FakeKms, key_id: str = "alias/penstock", *former: str) -> AwsKmsKek:
    """Return a KEK on a fake KMS."""
    return AwsKmsKek(
        kms, key_id=key_id, former_arns=former, failures=(ClientError, ConnectionError)
    )


def test_a_key_comes_back() -> None:
    """What was wrapped in KMS unwraps there, and the key's ARN is told, not its alias."""
    kms = FakeKms()
    kek = keeper(kms)
    wrapped = kek.wrap(KEY, ACME)
    assert wrapped.kek == kek.current() == KekVersion(f"aws-kms:{ARN}one", 1)
    assert kek.serves(wrapped.kek.uri)
    assert kek.unwrap(wrapped, ACME) == KEY


def test_the_organization_is_the_encryption_context() -> None:
    """A key does not open under another organization's context."""
    kek = keeper(FakeKms())
    wrapped = kek.wrap(KEY, ACME)
    with pytest.raises(UnwrapError, match="belongs to another owner"):
        kek.unwrap(wrapped, ACME | {"organization": "org_other"})


def test_rewrapping_follows_the_alias() -> None:
    """Once the alias points to another key, rewrapping moves to it while the old one is named."""
    kms = FakeKms()
    wrapped = keeper(kms).wrap(KEY, ACME)
    kms.alias = ARN + "two"
    with pytest.raises(UnwrapError, match="which is not configured here"):
        rewrap(wrapped, ACME, keeper(kms))
    fresh = rewrap(wrapped, ACME, keeper(kms, "alias/penstock", ARN + "one"))
    assert fresh.kek.uri == f"aws-kms:{ARN}two"
    assert keeper(kms).unwrap(fresh, ACME) == KEY


def test_a_key_that_is_not_named_is_never_asked() -> None:
    """Whoever writes an ARN of their own into a record does not get it used."""
    kms = FakeKms()
    foreign = WrappedKey(KekVersion(f"aws-kms:{ARN}two", 1), b"blob")
    with pytest.raises(UnwrapError, match="not configured here"):
        keeper(kms, ARN + "one").unwrap(foreign, ACME)
    assert "decrypt two" not in kms.asked


def test_the_key_to_decrypt_with_is_named_to_kms() -> None:
    """KMS is told which key to use, so that it does not take the one a ciphertext names."""
    kms = FakeKms()
    kek = keeper(kms, ARN + "one")
    kek.unwrap(kek.wrap(KEY, ACME), ACME)
    assert kms.asked == ["encrypt one", "decrypt one"]


@pytest.mark.parametrize(
    ("failure", "word"),
    [
        (ClientError("AccessDeniedException"), "AccessDeniedException"),
        (ClientError("KMSInvalidStateException"), "KMSInvalidStateException"),
        (ClientError("ThrottlingException"), "ThrottlingException"),
        (ConnectionError("canary"), "ConnectionError"),
    ],
)
def test_trouble_with_kms_says_nothing_about_keys(failure: Exception, word: str) -> None:
    """A KMS that is away, throttles or denies is unavailable, named by its code, not quoted."""
    kms = FakeKms()
    kek = keeper(kms)
    wrapped = kek.wrap(KEY, ACME)
    kms.failure = failure
    for call in (kek.current, lambda: kek.wrap(KEY, ACME), lambda: kek.unwrap(wrapped, ACME)):
        with pytest.raises(KekUnavailableError, match=word) as caught:
            call()
        assert "canary" not in str(caught.value)
        assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    "answer",
    [
        {"KeyMetadata": None},
        {"KeyMetadata": {"Arn": 5}, "KeyId": 5, "CiphertextBlob": b"", "Plaintext": "text"},
        {"KeyId": ARN + "one", "CiphertextBlob": None, "Plaintext": b"short"},
    ],
)
def test_answers_that_are_not_of_kms_are_refused(answer: Mapping[str, Any]) -> None:
    """A half answer is an error, not a key."""
    kms = FakeKms()
    kek = keeper(kms, ARN + "one")
    wrapped = kek.wrap(KEY, ACME)
    kms.answer = answer
    for call in (kek.current, lambda: kek.wrap(KEY, ACME), lambda: kek.unwrap(wrapped, ACME)):
        with pytest.raises(KekUnavailableError, match="not AWS' own"):
            call()


def test_the_package_is_optional() -> None:
    """Without boto3, the error names what to install."""
    if importlib.util.find_spec("boto3") is not None:
        pytest.skip("boto3 is installed here")
    with pytest.raises(KekUnavailableError, match=r"install penstock\[aws\]"):
        connect_aws_kms("alias/penstock")


@pytest.mark.parametrize(
    ("code", "is_refused"),
    [("ThrottlingException", False), ("DisabledException", True), ("AccessDeniedException", True)],
)
def test_a_refusal_is_told_from_being_away(code: str, *, is_refused: bool) -> None:
    """Whether the key was taken from us, or KMS is only out of reach, are two errors."""
    kms = FakeKms()
    kek = AwsKmsKek(kms, key_id=ARN + "one", failures=(ClientError,))
    wrapped = kek.wrap(KEY, ACME)
    kms.failure = ClientError(code)
    with pytest.raises(KekUnavailableError) as caught:
        kek.unwrap(wrapped, ACME)
    assert isinstance(caught.value, KekRefusedError) is is_refused
