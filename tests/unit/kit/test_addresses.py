"""Which addresses may be connected to on somebody else's word."""

from ipaddress import ip_address, ip_network

import pytest

from penstock.kit.addresses import is_never_a_server, may_connect

NEVER = (
    "0.0.0.0",
    "169.254.169.254",
    "224.0.0.1",
    "255.255.255.255",
    "100.100.100.200",
    "168.63.129.16",
    "::",
    "fe80::1",
    "ff02::1",
    "fd00:ec2::254",
    "fd20:ce::254",
    "::ffff:169.254.169.254",
    "::169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::a9fe:a9fe",
    "2002:a9fe:a9fe::1",
    "2001:0:808:808:0:ffff:5601:5601",
    "2001:0:a9fe:a9fe:0:ffff:f7f7:f7f7",
)
ALL = (ip_network("0.0.0.0/0"), ip_network("::/0"))


@pytest.mark.parametrize("text", NEVER)
def test_metadata_and_link_local_are_never_servers(text: str) -> None:
    """No setting allows them, however they are written."""
    assert is_never_a_server(ip_address(text))
    assert not may_connect(ip_address(text), ())
    assert not may_connect(ip_address(text), ALL)


def test_the_machine_itself_has_to_be_allowed() -> None:
    """The loopback counts where a network says so, and elsewhere not; others the other way."""
    for text in ("127.0.0.1", "::1", "::ffff:127.0.0.1"):
        assert not may_connect(ip_address(text), ())
        assert may_connect(ip_address(text), (ip_network("127.0.0.0/8"), ip_network("::1/128")))
    for text in ("64:ff9b::7f00:1", "2002:7f00:1::1", "2001:0:7f00:1:0:ffff:f7f7:f7f7"):
        assert not may_connect(ip_address(text), ())
    for text in ("10.0.0.1", "8.8.8.8", "fd00::1", "2001:db8::1"):
        assert may_connect(ip_address(text), ())
        assert not may_connect(ip_address(text), (ip_network("192.168.0.0/16"),))


@pytest.mark.parametrize(
    "text",
    ["::ffff:10.0.0.5", "64:ff9b::a00:5", "2002:a00:5::1", "2001:0:808:808:0:ffff:f5ff:fffa"],
)
def test_addresses_that_stand_for_others_are_where_those_are(text: str) -> None:
    """An address inside of another one counts, whatever networks say of the outer one."""
    assert may_connect(ip_address(text), (ip_network("10.0.0.0/8"),))
    assert not may_connect(ip_address(text), (ip_network("192.168.0.0/16"), ip_network("::/0")))
