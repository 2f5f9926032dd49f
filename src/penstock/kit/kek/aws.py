"""A KEK in AWS KMS: it never leaves there.

The key is a symmetric one. The role needs `kms:Encrypt`, `kms:Decrypt` and `kms:DescribeKey` on
it. The context of a data key is the encryption context, so policies and CloudTrail see the
organization.
"""

import importlib
import logging
from collections.abc import Mapping
from typing import Any, Protocol

from penstock.kit.envelope import KEY_BYTES, SecretBytes
from penstock.kit.kek.model import (
    Context,
    KekRefusedError,
    KekUnavailableError,
    KekVersion,
    UnwrapError,
    WrappedKey,
    foreign,
)

_SCHEME = "aws-kms:"
_VERSION = 1
"""KMS keeps the versions of a key to itself and opens all of them."""

_CONFIG: dict[str, Any] = {
    "connect_timeout": 5,
    "read_timeout": 10,
    "retries": {"total_max_attempts": 3, "mode": "standard"},
}

_ABOUT_THE_CIPHERTEXT = {"InvalidCiphertextException", "IncorrectKeyException"}
_ABOUT_THE_KEY = {
    "AccessDeniedException",
    "DisabledException",
    "KMSInvalidStateException",
    "NotFoundException",
}


class KmsClient(Protocol):
    """The part of `boto3.client("kms")` that is used here."""

    def describe_key(self, *, KeyId: str) -> Mapping[str, Any]:  # noqa: N803  # AWS' own name
        """Return what is known about a key."""
        ...

    def encrypt(
        self,
        *,
        KeyId: str,  # noqa: N803  # AWS' own name, as are the others
        Plaintext: bytes,  # noqa: N803
        EncryptionContext: dict[str, str],  # noqa: N803
    ) -> Mapping[str, Any]:
        """Encrypt up to 4 KiB."""
        ...

    def decrypt(
        self,
        *,
        KeyId: str,  # noqa: N803  # AWS' own name, as are the others
        CiphertextBlob: bytes,  # noqa: N803
        EncryptionContext: dict[str, str],  # noqa: N803
    ) -> Mapping[str, Any]:
        """Decrypt what `encrypt` returned."""
        ...


class AwsKmsKek:
    """Wraps data keys with a KMS key.

    Rotation that KMS does by itself needs nothing from us: old versions stay. To move to another
    key, point the alias to it (or configure it) and name the old one as a former one until
    everything is rewrapped.

    Args:
        client: `boto3.client("kms")`.
        key_id: ARN or alias of the key that wraps.
        former_arns: ARNs of keys that only unwrap. A key that is not named is never asked, whoever
            wrote its name into the database.
        failures: What the client raises: `botocore.exceptions.ClientError`, `BotoCoreError`.
    """

    def __init__(
        self,
        client: KmsClient,
        *,
        key_id: str,
        former_arns: tuple[str, ...] = (),
        failures: tuple[type[Exception], ...] = (),
    ) -> None:
        """See the class."""
        self._client = client
        self._key_id = key_id
        self._former = frozenset(_SCHEME + arn for arn in former_arns)
        self._failures = failures

    def current(self) -> KekVersion:
        """See `Kek`."""
        try:
            answer = self._client.describe_key(KeyId=self._key_id)
        except self._failures as error:
            raise self._unavailable(error) from None
        metadata = answer.get("KeyMetadata")
        arn = metadata.get("Arn") if isinstance(metadata, Mapping) else None
        return self._version(arn)

    def serves(self, uri: str) -> bool:
        """See `Kek`. Every KMS key is answered for: whether it is one of ours, `unwrap` looks."""
        return uri.startswith(_SCHEME)

    def wrap(self, key: SecretBytes, context: Context) -> WrappedKey:
        """See `Kek`."""
        try:
            answer = self._client.encrypt(
                KeyId=self._key_id, Plaintext=key.reveal(), EncryptionContext=dict(context)
            )
        except self._failures as error:
            raise self._unavailable(error) from None
        ciphertext = answer.get("CiphertextBlob")
        if not isinstance(ciphertext, bytes):
            raise self._nonsense()
        return WrappedKey(self._version(answer.get("KeyId")), ciphertext)

    def unwrap(self, wrapped: WrappedKey, context: Context) -> SecretBytes:
        """See `Kek`."""
        uri = wrapped.kek.uri
        if uri not in self._former and uri != _SCHEME + self._key_id and uri != self.current().uri:
            raise foreign(wrapped)
        try:
            answer = self._client.decrypt(
                KeyId=uri.removeprefix(_SCHEME),
                CiphertextBlob=wrapped.ciphertext,
                EncryptionContext=dict(context),
            )
        except self._failures as error:
            if _code(error) in _ABOUT_THE_CIPHERTEXT:
                message = (
                    f"a key wrapped with {uri} does not open: it was altered, or belongs to "
                    "another owner"
                )
                raise UnwrapError(message) from None
            raise self._unavailable(error) from None
        plaintext = answer.get("Plaintext")
        if not isinstance(plaintext, bytes) or len(plaintext) != KEY_BYTES:
            raise self._nonsense()
        return SecretBytes(plaintext)

    def _version(self, arn: object) -> KekVersion:
        if not isinstance(arn, str):
            raise self._nonsense()
        return KekVersion(_SCHEME + arn, _VERSION)

    def _unavailable(self, error: Exception) -> KekUnavailableError:
        # Only code and kind of the error: its text may repeat the request.
        is_refused = _code(error) in _ABOUT_THE_KEY
        return (KekRefusedError if is_refused else KekUnavailableError)(
            f"the KMS key {self._key_id} cannot be used: {_code(error) or type(error).__name__}; "
            "look at the key's state, the role's permissions and the way to the endpoint"
        )

    def _nonsense(self) -> KekUnavailableError:
        return KekUnavailableError(
            f"the KMS key {self._key_id} gave an answer that is not AWS' own"
        )


def connect_aws_kms(
    key_id: str, *, former_arns: tuple[str, ...] = (), region: str | None = None
) -> AwsKmsKek:
    """Return a KEK that talks to AWS KMS with the machine's own role; nothing is sent yet.

    Args:
        key_id: See `AwsKmsKek`.
        former_arns: See `AwsKmsKek`.
        region: AWS region; that of the environment when None.

    Raises:
        KekUnavailableError: The package boto3 is not installed, or no region is known.
    """
    try:
        boto3 = importlib.import_module("boto3")
        config = importlib.import_module("botocore.config")
        exceptions = importlib.import_module("botocore.exceptions")
    except ModuleNotFoundError:
        message = "AWS KMS needs the package boto3; install penstock[aws]"
        raise KekUnavailableError(message) from None
    # At DEBUG botocore logs the bodies of requests and answers: data keys in clear.
    logging.getLogger("botocore").setLevel(logging.INFO)
    failures = (exceptions.ClientError, exceptions.BotoCoreError)
    try:
        client = boto3.client("kms", region_name=region, config=config.Config(**_CONFIG))
    except failures as error:
        message = f"AWS KMS cannot be used: {type(error).__name__}; name a region"
        raise KekUnavailableError(message) from None
    return AwsKmsKek(client, key_id=key_id, former_arns=former_arns, failures=failures)


def _code(error: Exception) -> str:
    response = getattr(error, "response", None)
    details = response.get("Error") if isinstance(response, Mapping) else None
    return str(details.get("Code", "")) if isinstance(details, Mapping) else ""
