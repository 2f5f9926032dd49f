"""Who asks the admin API: the holder of the admin token, or of an API key with a scope for it."""

import hmac

from penstock.access.authorization import ADMIN_API_SCOPES
from penstock.access.errors import KEY_REFUSED
from penstock.access.model import KeyRefusal, Principal
from penstock.access.peppers import Peppers
from penstock.access.rules import find_key_id
from penstock.access.verification import principal_of, verify_key
from penstock.control.authentication import BEARER, BEARER_AGAIN
from penstock.control.errors import TOKEN_MISSING, TOKEN_WRONG, AuthenticationError
from penstock.control.key_uses import KeyUses
from penstock.storage.database import Database
from penstock.storage.scope import Scope


class Principals:
    """Tells who holds a token.

    Args:
        database: Where keys are.
        peppers: What keys are hashed under.
        admin_token: The one of the platform's operator.
        key_uses: Told of keys that were shown.
    """

    def __init__(
        self, database: Database, peppers: Peppers, admin_token: bytes, key_uses: KeyUses
    ) -> None:
        """See the class."""
        self._key_uses = key_uses
        self._database = database
        self._peppers = peppers
        self._admin_token = admin_token

    async def identify(self, authorization: str, *, now_us: int, address: str | None) -> Principal:
        """Return who holds the token of an Authorization header.

        Args:
            authorization: The header's value; empty when there is none.
            now_us: The time.
            address: The caller's IP address.

        Raises:
            AuthenticationError: There is no token, or not one that is good here.
            DatabaseUnavailableError: Keys cannot be looked up now.
        """
        scheme, _, credentials = authorization.partition(" ")
        token = credentials.strip()
        if scheme.lower() != "bearer" or not token:
            raise AuthenticationError(TOKEN_MISSING, BEARER)
        # Header values came as Latin-1, so they go back as Latin-1.
        if hmac.compare_digest(token.encode("latin-1"), self._admin_token):
            return Principal.of_admin_token()
        if find_key_id(token) is None:
            raise AuthenticationError(TOKEN_WRONG, BEARER_AGAIN)
        return await self._identify_key(token, now_us, address)

    async def _identify_key(self, token: str, now_us: int, address: str | None) -> Principal:
        async with self._database.read(Scope.all_organizations()) as session:
            found = await verify_key(session, self._peppers, token, now_us=now_us, address=address)
        if isinstance(found, KeyRefusal):
            raise AuthenticationError(KEY_REFUSED, BEARER_AGAIN)
        principal = principal_of(found.record)
        if not ADMIN_API_SCOPES & principal.scopes:
            raise AuthenticationError(KEY_REFUSED, BEARER_AGAIN)
        self._key_uses.note(found, now_us)
        return principal
