"""A KEK in the Transit engine of HashiCorp Vault or OpenBao: it never leaves there.

The key is an `aes256-gcm96` one, e.g. `vault write -f transit/keys/penstock`. The token needs
`update` on `transit/encrypt/<key>` and `transit/decrypt/<key>` and `read` on `transit/keys/<key>`.
"""

import base64
import binascii
import hashlib
import hmac
import importlib
import re
from collections.abc import Mapping
from typing import Any, Protocol

from penstock.kit.envelope import KEY_BYTES, SecretBytes, bind
from penstock.kit.kek.model import (
    Context,
    KekRefusedError,
    KekUnavailableError,
    KekVersion,
    UnwrapError,
    WrappedKey,
    foreign,
)

_CIPHERTEXT = re.compile(r"vault:v(?P<version>[0-9]{1,9}):[A-Za-z0-9+/=]+")
_DIGEST_BYTES = 32
_TIMEOUT_S = 10


class TransitClient(Protocol):
    """The part of `hvac.Client().secrets.transit` that is used here."""

    def read_key(self, name: str, *, mount_point: str) -> Mapping[str, Any]:
        """Return what is known about a key."""
        ...

    def encrypt_data(
        self,
        name: str,
        *,
        plaintext: str,
        associated_data: str,
        context: str | None,
        mount_point: str,
    ) -> Mapping[str, Any]:
        """Encrypt a text in base64."""
        ...

    def decrypt_data(
        self,
        name: str,
        *,
        ciphertext: str,
        associated_data: str,
        context: str | None,
        mount_point: str,
    ) -> Mapping[str, Any]:
        """Return a plaintext in base64."""
        ...


class VaultTransitKek:
    """Wraps data keys with a Transit key.

    Args:
        client: `hvac.Client(...).secrets.transit`.
        key: Name of the Transit key.
        mount: Where the engine is mounted.
        is_derived: Whether the key was made with `derived=true`; each owner then has a KEK of its
            own below it.
        failures: What the client raises when the server refuses or is away. They are told apart
            by hvac's names: `InvalidRequest` (400) is about a ciphertext, `Forbidden` (403) and
            `InvalidPath` (404) about the key.
    """

    def __init__(
        self,
        client: TransitClient,
        *,
        key: str,
        mount: str = "transit",
        is_derived: bool = False,
        failures: tuple[type[Exception], ...] = (),
    ) -> None:
        """See the class."""
        self._client = client
        self._key = key
        self._mount = mount
        self._is_derived = is_derived
        self._failures = failures
        self._uri = f"vault:{mount}/{key}"

    def current(self) -> KekVersion:
        """See `Kek`."""
        try:
            answer = self._client.read_key(self._key, mount_point=self._mount)
        except self._failures as error:
            raise self._unavailable(error) from None
        number = _member(answer, "latest_version")
        if not isinstance(number, int):
            raise self._nonsense()
        return KekVersion(self._uri, number)

    def serves(self, uri: str) -> bool:
        """See `Kek`."""
        return uri == self._uri

    def wrap(self, key: SecretBytes, context: Context) -> WrappedKey:
        """See `Kek`."""
        # A Vault that does not know the key may make one, so a slip in its name is looked for.
        self.current()
        bound = _bound(context)
        # Vault before 1.13 ignores associated data without a word; the digest inside holds anyway.
        plaintext = hashlib.sha256(bound).digest() + key.reveal()
        try:
            answer = self._client.encrypt_data(
                self._key,
                plaintext=base64.b64encode(plaintext).decode(),
                mount_point=self._mount,
                **self._binding(bound),
            )
        except self._failures as error:
            raise self._unavailable(error) from None
        ciphertext = _member(answer, "ciphertext")
        match = _CIPHERTEXT.fullmatch(ciphertext) if isinstance(ciphertext, str) else None
        if match is None:
            raise self._nonsense()
        return WrappedKey(KekVersion(self._uri, int(match["version"])), match[0].encode())

    def unwrap(self, wrapped: WrappedKey, context: Context) -> SecretBytes:
        """See `Kek`."""
        if not self.serves(wrapped.kek.uri):
            raise foreign(wrapped)
        bound = _bound(context)
        try:
            answer = self._client.decrypt_data(
                self._key,
                ciphertext=wrapped.ciphertext.decode("ascii", "replace"),
                mount_point=self._mount,
                **self._binding(bound),
            )
        except self._failures as error:
            if _is_about_the_ciphertext(error):
                raise self._unopened() from None
            raise self._unavailable(error) from None
        text = _member(answer, "plaintext")
        try:
            plaintext = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError, TypeError):
            raise self._nonsense() from None
        digest, key = plaintext[:_DIGEST_BYTES], plaintext[_DIGEST_BYTES:]
        is_ours = hmac.compare_digest(digest, hashlib.sha256(bound).digest())
        if not is_ours or len(key) != KEY_BYTES:
            raise self._unopened()
        return SecretBytes(key)

    def _binding(self, bound: bytes) -> dict[str, Any]:
        text = base64.b64encode(bound).decode()
        return {"associated_data": text, "context": text if self._is_derived else None}

    def _unavailable(self, error: Exception) -> KekUnavailableError:
        # Only the kind of the error: its text may repeat the request.
        return (KekRefusedError if _is_about_the_key(error) else KekUnavailableError)(
            f"{self._uri} cannot be used: {type(error).__name__}; "
            "look whether Vault is unsealed, and at the token, its policy and the key's name"
        )

    def _nonsense(self) -> KekUnavailableError:
        return KekUnavailableError(f"{self._uri} gave an answer that is none of Vault's")

    def _unopened(self) -> UnwrapError:
        return UnwrapError(
            f"a key wrapped with {self._uri} does not open: it was altered, belongs to another "
            "owner, or its version is below min_decryption_version"
        )


def connect_vault(url: str, *, token: str, key: str, mount: str = "transit") -> VaultTransitKek:
    """Return a KEK that talks to a Vault; nothing is sent yet.

    Args:
        url: E.g. `https://vault.internal:8200`.
        token: A Vault token.
        key: See `VaultTransitKek`.
        mount: See `VaultTransitKek`.

    Raises:
        KekUnavailableError: The package hvac is not installed.
    """
    try:
        hvac, requests = importlib.import_module("hvac"), importlib.import_module("requests")
    except ModuleNotFoundError:
        message = "Vault needs the package hvac; install penstock[vault]"
        raise KekUnavailableError(message) from None
    client: Any = hvac.Client(url=url, token=token, timeout=_TIMEOUT_S)
    failures = (hvac.exceptions.VaultError, requests.exceptions.RequestException)
    return VaultTransitKek(client.secrets.transit, key=key, mount=mount, failures=failures)


def _bound(context: Context) -> bytes:
    return bind("kek", *(text for pair in sorted(context.items()) for text in pair))


def _member(answer: object, name: str) -> Any:
    data = answer.get("data") if isinstance(answer, Mapping) else None
    return data.get(name) if isinstance(data, Mapping) else None


def _is_about_the_ciphertext(error: Exception) -> bool:
    # The one 400 that is about the key: it is not there (yet).
    return _is_named(error, "InvalidRequest") and not _lacks_key(error)


def _is_about_the_key(error: Exception) -> bool:
    return _is_named(error, "Forbidden", "InvalidPath") or _lacks_key(error)


def _lacks_key(error: Exception) -> bool:
    return any("key not found" in str(text) for text in getattr(error, "errors", None) or ())


def _is_named(error: Exception, *names: str) -> bool:
    return any(base.__name__ in names for base in type(error).__mro__)
