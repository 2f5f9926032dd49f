"""The one way from the agent to engines: to addresses of the catalog, and nowhere else."""

import ssl
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager

import httpx

from penstock.contract.snapshot import Endpoint
from penstock.kit.tls import verify_for


class EngineClients:
    """Clients for engines: none follows a redirect, takes a proxy or keeps a connection.

    Args:
        timeout_s: Of each step of a request.
        transport: Replaces the network in tests.
    """

    def __init__(self, timeout_s: float, transport: httpx.AsyncBaseTransport | None = None) -> None:
        """See the class."""
        self._timeout_s = timeout_s
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
                timeout=self._timeout_s,
                trust_env=False,
                transport=self._transport,
                verify=verify,
            )
        return client

    def ask(
        self,
        method: str,
        endpoint: Endpoint,
        path: str,
        tls_ca_file: str | None,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> AbstractAsyncContextManager[httpx.Response]:
        """Ask an endpoint by the name that it has, also where an address was found under it.

        Args:
            method: Of the request.
            endpoint: Which is asked.
            path: What of it.
            tls_ca_file: What its upstream is verified with.
            headers: Further ones.
            body: What is sent.

        Raises:
            OSError: The CA file cannot be read.
        """
        name = endpoint.server_name
        return self._to(endpoint, tls_ca_file).stream(
            method,
            endpoint.url + path,
            content=body or None,
            headers={"host": endpoint.authority, **(headers or {})},
            extensions={"sni_hostname": name} if name else {},
        )

    async def close(self) -> None:
        """Let go of all of them."""
        for client in self._clients.values():
            await client.aclose()
