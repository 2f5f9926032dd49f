"""Lists of models, as servers that speak OpenAI's protocol have them."""

from typing import Any

import httpx
import msgspec

from penstock.contract.snapshot import Endpoint
from penstock.node.engine_clients import EngineClients, FindToken, find_credential

LIST_BYTES = 1024 * 1024
_OK = 200


async def ask_for_list(
    clients: EngineClients,
    find_token: FindToken,
    endpoint: Endpoint,
    path: str,
    *,
    credential: str | None,
    tls_ca_file: str | None,
) -> bytes | None:
    """Return a server's list of models; None when it is not to be had.

    Args:
        clients: What it is asked with.
        find_token: Returns what a reference to a credential stands for, if it can be had.
        endpoint: The server.
        path: Of the list.
        credential: Reference of what the server is shown.
        tls_ca_file: What its upstream is verified with.
    """
    headers = find_credential(credential, find_token)
    if headers is None:
        return None
    try:
        reply = await clients.ask(
            "GET", endpoint, path, tls_ca_file, most_bytes=LIST_BYTES, headers=headers
        )
    except (httpx.HTTPError, httpx.InvalidURL, OSError):
        return None
    return reply.body if reply.status == _OK and len(reply.body) <= LIST_BYTES else None


def read_entries(content: bytes) -> list[dict[str, Any]] | None:
    """Return the entries of a list of models; None when it is no such list.

    >>> read_entries(b'{"data": [{"id": "m"}, 7]}')
    [{'id': 'm'}]
    """
    try:
        found: Any = msgspec.json.decode(content)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    entries = found.get("data") if isinstance(found, dict) else None
    if not isinstance(entries, list):
        return None
    return [entry for entry in entries if isinstance(entry, dict)]
