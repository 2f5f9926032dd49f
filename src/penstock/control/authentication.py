"""Who asks, told by a token; who that is says whose data a request may touch."""

import base64
import binascii
import hmac
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from penstock.control import log_events
from penstock.control.errors import (
    TOKEN_MISSING,
    TOKEN_WEAK,
    TOKEN_WRONG,
    AuthenticationError,
)
from penstock.kit.errors import PenstockError
from penstock.kit.files import read_or_create_secret
from penstock.kit.secrets import find_secret_fault
from penstock.storage.scope import Scope

BEARER = 'Bearer realm="penstock"'
"""What is answered to who shows no token, in `WWW-Authenticate`."""
BEARER_AGAIN = f'{BEARER}, error="invalid_token"'
"""The same to who shows one that is not good here."""
_BASIC = 'Basic realm="penstock", charset="UTF-8"'


def read_token(path: Path) -> bytes:
    """Return the token, or other secret, in a file; made when the file is missing.

    That one was made is logged, with its place: it is told nowhere else.

    Raises:
        PenstockError: `TOKEN_WEAK`: anybody could guess it.
    """
    is_new = not path.exists()
    token = read_or_create_secret(path)
    fault = find_secret_fault(path, token)
    if fault is not None:
        raise PenstockError(TOKEN_WEAK, fault)
    if is_new:
        log_events.SECRET_MADE.log(path=path)
    return token


def create_bearer(token: bytes, scheme_name: str, description: str) -> Callable[..., Scope]:
    """Return a dependency that lets in who has the token, as the operator of all organizations.

    Args:
        token: The one that is right.
        scheme_name: Its name in the OpenAPI document.
        description: Where a reader finds it.
    """
    bearer = HTTPBearer(auto_error=False, scheme_name=scheme_name, description=description)

    def authenticate(
        credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
    ) -> Scope:
        if credentials is None:
            raise AuthenticationError(TOKEN_MISSING, BEARER)
        # Header values came as Latin-1, so they go back as Latin-1.
        if not hmac.compare_digest(credentials.credentials.encode("latin-1"), token):
            raise AuthenticationError(TOKEN_WRONG, BEARER_AGAIN)
        return Scope.all_organizations()

    return authenticate


def create_page_authentication(token: bytes) -> Callable[..., Scope]:
    """Return a dependency for pages: the token as a Bearer, or as the password that browsers ask.

    The user name does not matter. A token in the URL is not looked at: URLs end in logs and
    histories.
    """

    def authenticate(request: Request) -> Scope:
        given = find_token(request.headers.get("authorization", ""))
        if given is None:
            raise AuthenticationError(TOKEN_MISSING, _BASIC)
        if not hmac.compare_digest(given, token):
            raise AuthenticationError(TOKEN_WRONG, _BASIC)
        return Scope.all_organizations()

    return authenticate


def find_token(authorization: str) -> bytes | None:
    """Return the token in an Authorization header, or None when there is none.

    >>> find_token("Bearer abc")
    b'abc'
    >>> find_token("Basic YW55Ym9keTphYmM=")
    b'abc'
    """
    scheme, _, credentials = authorization.partition(" ")
    match scheme.lower():
        case "bearer":
            return credentials.strip().encode("latin-1")
        case "basic":
            try:
                decoded = base64.b64decode(credentials.strip(), validate=True)
            except (binascii.Error, ValueError):
                return None
            _, colon, password = decoded.partition(b":")
            return password if colon else None
    return None
