"""The one way from the agent to engines: to addresses of the catalog, and nowhere else."""

import ssl

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

    def to(self, endpoint: Endpoint, tls_ca_file: str | None) -> httpx.AsyncClient:
        """Return what all endpoints of one trust are asked with.

        Args:
            endpoint: Which is to be asked.
            tls_ca_file: What its upstream is verified with.

        Raises:
            OSError: That cannot be read.
        """
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

    async def close(self) -> None:
        """Let go of all of them."""
        for client in self._clients.values():
            await client.aclose()
