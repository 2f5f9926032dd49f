"""What every keeper of a key-encryption key (KEK) can do, and what is done with any of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from penstock.kit.envelope import SecretBytes

Context: TypeAlias = Mapping[str, str]
"""What a data key belongs to, e.g. `{"organization": "org_..."}`. Not secret: a KMS may log it."""


class KekUnavailableError(Exception):
    """The KEK cannot be used now; nothing is said about the wrapped keys.

    It is away, sealed, throttled or disabled, denies permission, or its key file is not as it
    should be. What was asked for may be asked again once that is put right. The message holds no
    secret.
    """


class KekRefusedError(KekUnavailableError):
    """The KEK is there no more for us: disabled, removed, or its use was forbidden.

    The keeper itself said so. Whoever took it away wants what it opened to end; that it is only
    out of reach looks otherwise.
    """


class UnwrapError(Exception):
    """A wrapped key does not open with this KEK, and asking again will not change that.

    It was altered, belongs to another owner, or its KEK or version of it is gone. The message
    holds no secret.
    """


@dataclass(frozen=True, slots=True)
class KekVersion:
    """One version of one KEK."""

    uri: str
    """Names the KEK and its keeper, `file:...`, `vault:...` or `aws-kms:...`; stable for ever."""
    number: int
    """Grows with each rotation that the keeper lets us see."""


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """A data key, encrypted; fit to be stored."""

    kek: KekVersion
    """What it was wrapped with."""
    ciphertext: bytes
    """In the keeper's own form."""


class Kek(Protocol):
    """A keeper of a KEK.

    Calls may go over the network and block: an event loop runs them in a thread. An object may be
    used by several threads.
    """

    def current(self) -> KekVersion:
        """Return the version that `wrap` would use now.

        Raises:
            KekUnavailableError: As for the others.
        """
        ...

    def serves(self, uri: str) -> bool:
        """Tell whether keys that were wrapped with this KEK are unwrapped here.

        Asks no other machine.
        """
        ...

    def wrap(self, key: SecretBytes, context: Context) -> WrappedKey:
        """Encrypt a data key with the current version and bind it to the context.

        Raises:
            KekUnavailableError: It was not wrapped.
        """
        ...

    def unwrap(self, wrapped: WrappedKey, context: Context) -> SecretBytes:
        """Return the data key that was wrapped for this context, by whatever version.

        Raises:
            UnwrapError: It never will be.
            KekUnavailableError: Not now.
        """
        ...


class KekRing:
    """A KEK and those before it, as one: new keys are wrapped with the first one.

    This is how data keys move from one keeper to another, e.g. from a file to a Vault: both are
    in the ring until everything is rewrapped.

    Args:
        current: Wraps, and unwraps what it wrapped.
        former: Only unwrap.
    """

    def __init__(self, current: Kek, *former: Kek) -> None:
        """See the class."""
        self._current = current
        self._all = (current, *former)

    def current(self) -> KekVersion:
        """See `Kek`."""
        return self._current.current()

    def serves(self, uri: str) -> bool:
        """See `Kek`."""
        return any(kek.serves(uri) for kek in self._all)

    def wrap(self, key: SecretBytes, context: Context) -> WrappedKey:
        """See `Kek`."""
        return self._current.wrap(key, context)

    def unwrap(self, wrapped: WrappedKey, context: Context) -> SecretBytes:
        """See `Kek`."""
        for kek in self._all:
            if kek.serves(wrapped.kek.uri):
                return kek.unwrap(wrapped, context)
        raise foreign(wrapped)


def foreign(wrapped: WrappedKey) -> UnwrapError:
    """Return the error for a key that was wrapped with a KEK that is not configured."""
    return UnwrapError(f"the key was wrapped with {wrapped.kek.uri}, which is not configured here")


def is_outdated(wrapped: WrappedKey, current: KekVersion) -> bool:
    """Tell whether a wrapped key should be wrapped anew.

    A key that is ahead of `current` is not: the KEK was rotated after `current` was asked for.
    """
    return wrapped.kek.uri != current.uri or wrapped.kek.number < current.number


def rewrap(wrapped: WrappedKey, context: Context, kek: Kek) -> WrappedKey:
    """Return the same data key, wrapped with the KEK's current version.

    The new wrapping is opened once before it is returned, so that the old one may be thrown away.
    A key that is current already comes back as it is.

    Raises:
        UnwrapError: The old wrapping does not open.
        KekUnavailableError: The KEK is away, or does not give back what it was given.
    """
    if not is_outdated(wrapped, kek.current()):
        return wrapped
    key = kek.unwrap(wrapped, context)
    fresh = kek.wrap(key, context)
    try:
        is_same = kek.unwrap(fresh, context) == key
    except UnwrapError:
        is_same = False
    if not is_same:
        message = f"{fresh.kek.uri} did not give back the key that it wrapped; nothing was changed"
        raise KekUnavailableError(message)
    return fresh
