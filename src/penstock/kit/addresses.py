"""Which IP addresses may be connected to on somebody else's word."""

from collections.abc import Sequence
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_NEVER: tuple[Network, ...] = tuple(
    map(
        ip_network,
        (
            "0.0.0.0/8",
            "169.254.0.0/16",  # link-local: where most clouds tell a machine its secrets
            "224.0.0.0/4",
            "240.0.0.0/4",
            "100.100.100.200/32",  # Alibaba Cloud's metadata
            "168.63.129.16/32",  # Azure's
            "::/128",
            "fe80::/10",
            "fec0::/10",
            "64:ff9b:1::/48",  # which IPv4 addresses these stand for, only their network knows
            "ff00::/8",
            "fd00:ec2::/32",  # AWS's
            "fd20:ce::254/128",  # Google Cloud's
        ),
    )
)
_NAT64 = IPv6Network("64:ff9b::/96")
_COMPATIBLE = IPv6Network("::/96")


def real_address(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address stands for; others as they are.

    >>> from ipaddress import ip_address
    >>> real_address(ip_address("::ffff:169.254.169.254"))
    IPv4Address('169.254.169.254')
    >>> real_address(ip_address("64:ff9b::10.0.0.1")), real_address(ip_address("::1"))
    (IPv4Address('10.0.0.1'), IPv6Address('::1'))
    """
    if isinstance(address, IPv4Address):
        return address
    inner = address.ipv4_mapped or address.sixtofour
    if inner is None and address.teredo is not None:
        inner = address.teredo[1]
    if inner is not None:
        return inner
    is_embedded = address in _NAT64 or (address in _COMPATIBLE and int(address) > 1)
    return IPv4Address(int(address) & 0xFFFF_FFFF) if is_embedded else address


def write_host(text: str) -> str:
    """Return a host in the one way to write it: an IPv4 address never as an IPv6 one.

    Both are one connection to one place. A name is returned as it is.

    >>> [write_host(each) for each in ("::FFFF:10.0.0.5", "10.0.0.5", "FD00::0:1", "gpu")]
    ['10.0.0.5', '10.0.0.5', 'fd00::1', 'gpu']
    """
    try:
        address = ip_address(text)
    except ValueError:
        return text
    mapped = None if isinstance(address, IPv4Address) else address.ipv4_mapped
    return str(mapped or address)


def is_never_a_server(address: Address) -> bool:
    """Tell whether nothing that one address names can be meant: link-local, multicast, metadata.

    >>> from ipaddress import ip_address
    >>> [is_never_a_server(ip_address(each)) for each in ("169.254.169.254", "10.0.0.1", "::1")]
    [True, False, False]
    """
    return any(_is_in(each, _NEVER) for each in _led_to(address))


def may_connect(address: Address, networks: Sequence[Network]) -> bool:
    """Tell whether an address that somebody else gave may be connected to.

    Args:
        address: The address.
        networks: Where it has to be; anywhere but on this machine when there are none.

    >>> from ipaddress import ip_address
    >>> [may_connect(ip_address(each), ()) for each in ("10.0.0.1", "127.0.0.1", "fe80::1")]
    [True, False, False]
    >>> may_connect(ip_address("127.0.0.1"), [ip_network("127.0.0.0/8")])
    True
    """
    if is_never_a_server(address):
        return False
    if networks:
        return _is_in(real_address(address), networks)
    return not any(each.is_loopback for each in _led_to(address))


def _led_to(address: Address) -> tuple[Address, ...]:
    """Return where packets to an address may go: by Teredo, also to the server that it names."""
    real = real_address(address)
    if isinstance(address, IPv6Address) and address.teredo is not None:
        return real, address.teredo[0]
    return (real,)


def _is_in(address: Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks if network.version == address.version)
