"""What an operator says about how endpoints are found."""

from ipaddress import ip_address, ip_network

import msgspec

from penstock.kit.addresses import Network
from penstock.node.errors import SETTINGS_INVALID, AgentError


class DiscoverySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How the agent finds endpoints; nobody who manages upstreams can change it."""

    networks: tuple[str, ...] = ()
    """Where endpoints that are found have to be, as `10.0.0.0/8`; anywhere but on the node itself
    when empty. Link-local addresses and metadata of clouds are never among them."""
    dns_server: str | None = None
    """Name server that is asked, `ADDRESS` or `ADDRESS:PORT`; those of the system when None."""

    kubernetes_url: str | None = None
    """API server of the cluster, as `https://10.0.0.1:6443`; as pods are told when None."""
    kubernetes_token_file: str = "/var/run/secrets/kubernetes.io/serviceaccount/token"  # noqa: S105  # a path
    """What it is shown; read each time, so it can be renewed."""
    kubernetes_ca_file: str = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"
    """PEM file that it is verified with."""

    def parse_networks(self) -> tuple[Network, ...]:
        """Return the networks.

        Raises:
            AgentError: One is none.
        """
        try:
            return tuple(map(ip_network, self.networks))
        except ValueError as error:
            raise AgentError(
                SETTINGS_INVALID, f"bad settings: discovery.networks: {error}"
            ) from None

    def parse_dns_server(self) -> tuple[str, int] | None:
        """Return address and port of the name server.

        Raises:
            AgentError: There is none of the kind.
        """
        if self.dns_server is None:
            return None
        address, _, port = self.dns_server.partition(":")
        try:
            return str(ip_address(address)), int(port or 53)
        except ValueError as error:
            message = f"bad settings: discovery.dns_server: {error}"
            raise AgentError(SETTINGS_INVALID, message) from None
