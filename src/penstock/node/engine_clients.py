"""The one way from the agent to engines: to addresses of the catalog, and nowhere else."""

import asyncio
import ssl
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

import httpx

from penstock.contract.snapshot import Endpoint
from penstock.kit.envelope import SecretBytes
from penstock.kit.logs.redaction import REDACTED
from penstock.kit.tls import verify_for
from penstock.node.answers import let_go

FindToken: TypeAlias = Callable[[str], SecretBytes | None]
"""Returns what a reference to a credential stands for, if it can be had."""


class Reply(NamedTuple):
    """What an engine answered."""

    status: int
    body: bytes
    """All of it, or its beginning, which is longer than what was asked for."""


def find_credential(reference: str | None, find_token: FindToken) -> dict[str, str] | None:
    """Return the headers that show an upstream its credential; None when that cannot be had."""
    if reference is None:
        return {}
    token = find_token(reference)
    return None if token is None else {"authorization": f"Bearer {token.reveal().decode('ascii')}"}


def read_words(reply: Reply, headers: Mapping[str, str], most_chars: int) -> str:
    """Return the beginning of what an engine answered as text, without our credential.

    Args:
        reply: What it answered.
        headers: What it was shown; some repeat that.
        most_chars: How much of it.
    """
    text = reply.body.decode("utf-8", "replace")
    token = headers.get("authorization", "").removeprefix("Bearer ")
    return (text.replace(token, REDACTED) if token else text)[:most_chars]


class EngineClients:
    """Clients for engines: none follows a redirect, takes a proxy or keeps a connection.

    Args:
        deadline_s: Of a request, whatever comes of it.
        transport: Replaces the network in tests.
    """

    def __init__(
        self, deadline_s: float, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        """See the class."""
        self._deadline_s = deadline_s
        self._transport = transport
        self._clients: dict[tuple[str, str | None], httpx.AsyncClient] = {}

    def _to(self, endpoint: Endpoint, tls_ca_file: str | None) -> httpx.AsyncClient:
        """Return what all endpoints of one trust are asked with."""
        name = endpoint.scheme, tls_ca_file
        client = self._clients.get(name)
        if client is None:
            verify = verify_for(endpoint.url)
            if verify is True and tls_ca_file is not None:
                verify = ssl.create_default_context(cafile=tls_ca_file)
            client = self._clients[name] = httpx.AsyncClient(
                limits=httpx.Limits(max_keepalive_connections=0),
                timeout=self._deadline_s,
                trust_env=False,
                transport=self._transport,
                verify=verify,
            )
        return client

    async def ask(
        self,
        method: str,
        endpoint: Endpoint,
        path: str,
        tls_ca_file: str | None,
        *,
        most_bytes: int,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> Reply:
        """Ask an endpoint by the name that it has, also where an address was found under it.

        Args:
            method: Of the request.
            endpoint: Which is asked.
            path: What of it.
            tls_ca_file: What its upstream is verified with.
            most_bytes: No more is read of an answer that is longer.
            headers: Further ones.
            body: What is sent.

        Raises:
            httpx.HTTPError, httpx.InvalidURL: It did not answer, or with what is compressed, or
                cannot be asked.
            OSError: The CA file cannot be read, or (`TimeoutError`) the deadline is over.
        """
        name = endpoint.server_name
        request = self._to(endpoint, tls_ca_file).stream(
            method,
            endpoint.url + path,
            content=body or None,
            headers={"host": endpoint.authority, "accept-encoding": "identity", **(headers or {})},
            extensions={"sni_hostname": name} if name else {},
        )
        async with asyncio.timeout(self._deadline_s), request as answer:
            if answer.headers.get("content-encoding", "identity") != "identity":
                message = "it is compressed"  # and may be a thousand times as large
                raise httpx.DecodingError(message)
            content = b""
            async for piece in answer.aiter_bytes():
                content += piece
                if len(content) > most_bytes:
                    break
        let_go(answer)
        return Reply(answer.status_code, content)

    async def close(self) -> None:
        """Let go of all of them."""
        for client in self._clients.values():
            await client.aclose()
