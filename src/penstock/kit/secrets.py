"""References to secrets: configuration and snapshots say where a secret is, never what it is."""

import os
import re
from pathlib import Path

_REFERENCE = re.compile(r"(?P<kind>env|file):(?P<where>.+)")


class SecretUnavailableError(Exception):
    """A secret reference is malformed, or what it names cannot be read."""


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
    except (KeyError, OSError, UnicodeDecodeError) as error:
        message = f"cannot read the secret {reference}: {type(error).__name__}"
        raise SecretUnavailableError(message) from None
    if not secret.strip():
        message = f"the secret {reference} is empty"
        raise SecretUnavailableError(message)
    return secret.strip()
