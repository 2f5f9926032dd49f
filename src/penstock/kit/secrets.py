"""Secrets: references, which say where one is and never what it is, and the signs of a weak one."""

import os
import re
from pathlib import Path

from penstock.kit.files import why_unread

MIN_SECRET_BYTES = 16
MIN_DISTINCT_BYTES = 6
"""Fewer different characters than that are no accident in a secret of any length."""
MIN_UNKNOWN_CHARS = 6
"""So many characters of a secret are neither separators nor in a word that attackers try first."""

# Longer words stand before those that they begin with.
_WORD = re.compile(
    r"""
    0?123456789?0?|12345678?|1234?5?6?7?|abcdefghijklmnopqrstuvwxyz|abcdefgh|abcdef|abc|qwerty(?:uiop)?
    |administrator|admin|api|change|default|demo|dev(?:elopment)?|dummy|example|foo|bar|baz|gateway
    |hello|here|insert|key|letmein|litellm|local|master|me|my|node|none|null|pass(?:word|phrase)?|passwd
    |pepper|penstock|please|private|prod(?:uction)?|replace|root|salt|sample|secret|sk|super
    |test(?:ing|s)?|todo|token|undefined|user|value|welcome|with|world|xxx|your
    """,
    re.VERBOSE,
)
_SEPARATOR = re.compile(r"[\t\n\r -/:-@\[-`{-~]")
_REFERENCE = re.compile(r"(?P<kind>env|file):(?P<where>.+)")


class SecretUnavailableError(Exception):
    """A secret reference is malformed, or what it names cannot be read."""


def find_secret_fault(path: Path, secret: bytes) -> str | None:
    """Return why a secret of ours must not be used, or None when it looks as if chance made it.

    Args:
        path: Where it is; the answer names it and says how to make a good one.
        secret: What is in there; it is in no answer.
    """
    weakness = _find_weakness(secret)
    if weakness is None:
        return None
    return f"{path} {weakness}; put a random one there: openssl rand -hex 32 > {path}"


def _find_weakness(secret: bytes) -> str | None:
    if not secret:
        return "is empty"
    if len(secret) < MIN_SECRET_BYTES:
        return f"has fewer than {MIN_SECRET_BYTES} characters"
    has_period = any(
        secret[period:] == secret[:-period] for period in range(1, len(secret) // 2 + 1)
    )
    if has_period or len(set(secret)) < MIN_DISTINCT_BYTES:
        return "repeats a pattern"
    unknown = _SEPARATOR.sub("", _WORD.sub("", secret.decode("latin-1").lower()))
    if len(unknown) < MIN_UNKNOWN_CHARS:
        return "is made of words that everybody tries"
    return None


def resolve_secret(reference: str) -> str:
    """Return the secret that a reference names.

    Args:
        reference: `env:NAME` (an environment variable) or `file:PATH` (a file's content).

    Returns:
        The secret without surrounding white space; never empty.

    Raises:
        SecretUnavailableError: The reference is of another form, or names nothing or an empty
            secret. The message names the reference, never the secret.
    """
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        message = "a secret reference is env:NAME or file:PATH"
        raise SecretUnavailableError(message)
    where = match["where"]
    try:
        secret = os.environ[where] if match["kind"] == "env" else Path(where).read_text()
    except KeyError:
        message = f"cannot read the secret {reference}: there is no such variable"
        raise SecretUnavailableError(message) from None
    except (OSError, UnicodeDecodeError) as error:
        message = f"cannot read the secret {reference}: {why_unread(error)}"
        raise SecretUnavailableError(message) from None
    if not secret.strip():
        message = f"the secret {reference} is empty"
        raise SecretUnavailableError(message)
    return secret.strip()
