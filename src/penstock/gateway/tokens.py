"""What references to upstream credentials stand for, on behalf of one worker."""

import re
from collections.abc import Mapping

from penstock.contract.snapshot import CREDENTIAL_SCHEME
from penstock.kit.secrets import SecretUnavailableError, resolve_secret

_TOKEN = re.compile(r"[!-~]+")
"""What can stand in a header line and nowhere else."""


class Tokens:
    """Tokens that the agent opened, in memory and nowhere else, and those of the environment."""

    def __init__(self) -> None:
        """Start without those that the agent opens."""
        self._opened: Mapping[str, str] = {}

    def __repr__(self) -> str:
        """Show how many, and no token."""
        return f"Tokens({len(self._opened)} opened)"

    def replace(self, opened: Mapping[str, str]) -> None:
        """Use these opened tokens from now on, by the credential's id, and no others."""
        self._opened = opened

    def authorization(self, reference: str | None, key_header: str = "") -> bytes:
        """Return the header line that shows a credential, ending in CRLF; nothing for None.

        Args:
            reference: Where it is.
            key_header: As in `engines.model.Engine`.

        Raises:
            SecretUnavailableError: There is none behind the reference, or it is no token. The
                message names the reference, never the secret.
        """
        if reference is None:
            return b""
        if reference.startswith(CREDENTIAL_SCHEME):
            secret = self._opened.get(reference.removeprefix(CREDENTIAL_SCHEME))
            if secret is None:
                message = f"the agent sent no token for {reference}"
                raise SecretUnavailableError(message)
        else:
            secret = resolve_secret(reference)
        if _TOKEN.fullmatch(secret) is None:
            message = f"the secret {reference} is no token: it must be one word of ASCII"
            raise SecretUnavailableError(message)
        shown = f"{key_header}: {secret}" if key_header else f"authorization: Bearer {secret}"
        return shown.encode("ascii") + b"\r\n"
