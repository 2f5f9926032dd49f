"""Which kind of source is followed how."""

import random
from collections.abc import AsyncGenerator

from dns.asyncresolver import Resolver

from penstock.catalog.discovery import Source
from penstock.node.discovery.answer import Answer, Follow
from penstock.node.discovery.cluster import Cluster
from penstock.node.discovery.files import follow_file
from penstock.node.discovery.kubernetes import follow_cluster, follow_pool
from penstock.node.discovery.names import Pace, follow_name
from penstock.node.discovery.registered import Calls, follow_registered
from penstock.node.discovery.settings import DiscoverySettings


def make_follow(settings: DiscoverySettings, calls: Calls) -> Follow:
    """Return what follows any source.

    Args:
        settings: What is asked.
        calls: Reaches the control plane.

    Raises:
        AgentError: They are not valid.
    """
    server = settings.parse_dns_server()
    cluster = Cluster(settings, random.random)

    def make_resolver() -> Resolver:
        resolver = Resolver(configure=server is None)
        if server is not None:
            resolver.nameservers, resolver.port = [server[0]], server[1]
        return resolver

    def follow(source: Source) -> AsyncGenerator[Answer, None]:
        match source.kind:
            case "file":
                return follow_file(source)
            case "services" | "pods":
                return follow_cluster(source, cluster)
            case "inferencepools":
                return follow_pool(source, cluster)
            case "registered":
                return follow_registered(source, calls, random.random)
        return follow_name(source, make_resolver, Pace(), random.random)

    return follow
