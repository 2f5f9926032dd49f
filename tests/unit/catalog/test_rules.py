"""Addresses, names and headers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.catalog.rules import (
    MAX_PORTS,
    is_header_safe,
    parse_endpoint,
    parse_endpoints,
    write_url,
)
from penstock.contract.snapshot import Endpoint


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("http://127.0.0.1:18080", Endpoint("http", "127.0.0.1", 18080)),
        ("https://Models.Example.com", Endpoint("https", "models.example.com", 443)),
        ("http://my_service:8000/", Endpoint("http", "my_service", 8000)),
        ("http://[2001:DB8::1]:8000/a/b/", Endpoint("http", "2001:db8::1", 8000, "/a/b")),
        ("http://host/v1~x", Endpoint("http", "host", 80, "/v1~x")),
    ],
)
def test_urls_have_one_canonical_form(url: str, endpoint: Endpoint) -> None:
    """Scheme, host, port and prefix are read as they are meant."""
    assert parse_endpoint(url) == endpoint


@pytest.mark.parametrize(
    ("ports", "expected"),
    [
        ("8000", [8000]),
        ("8000-8000", [8000]),
        ("8000-8003", [8000, 8001, 8002, 8003]),
        ("9000,8000-8002,8001", [8000, 8001, 8002, 9000]),
        (f"1-{MAX_PORTS}", [*range(1, MAX_PORTS + 1)]),
    ],
)
def test_each_port_of_a_url_is_an_endpoint(ports: str, expected: list[int]) -> None:
    """Ranges and lists of ports stand for the same place at each of them, once."""
    assert parse_endpoints(f"http://[::1]:{ports}/serve") == tuple(
        Endpoint("http", "::1", port, "/serve") for port in expected
    )


@pytest.mark.parametrize(
    ("urls", "written"),
    [
        (("http://Gpu", "http://gpu/", "http://gpu:080"), "http://gpu:80"),
        (("https://[FD00::0:1]/a/", "https://[fd00::1]:443/a"), "https://[fd00::1]:443/a"),
        (
            ("http://[::ffff:10.0.0.5]", "http://[::FFFF:a00:5]/", "http://10.0.0.5"),
            "http://10.0.0.5:80",
        ),
        (("http://gpu:8,1-2,3", "http://gpu:1,2,3,8"), "http://gpu:1-3,8"),
    ],
)
def test_a_place_is_written_in_one_way(urls: tuple[str, ...], written: str) -> None:
    """Whatever names the same endpoints is the same text, which names them, too."""
    for url in (*urls, written):
        endpoints = parse_endpoints(url)
        assert write_url(endpoints) == written
        assert parse_endpoints(written) == endpoints


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://user:pass@host", "user name or password"),
        ("http://host@evil", "user name or password"),
        ("http://host/?a=b", "query or fragment"),
        ("http://host#x", "query or fragment"),
        ("ftp://host", "another scheme"),
        ("file://host", "another scheme"),
        ("host:80", "no scheme"),
        ("http:/host", "no scheme"),
        ("http://", "not of the form"),
        ("http://ho st", "white space"),
        ("http://host\t", "white space"),
        ("http://host\n", "white space"),
        ("http://höst", "beyond ASCII"),
        ("http://host。com", "beyond ASCII"),
        ("http://a\\b", "not of the form"),
        ("http://host:0", "port that does not exist"),
        ("http://host:65536", "port that does not exist"),
        ("http://host:1x", "not of the form"),
        ("http://host:8000-8001", "several ports"),
        ("http://host:8001-8000", "port that does not exist"),
        ("http://host:8000-", "port that does not exist"),
        ("http://host:,8000", "port that does not exist"),
        ("http://host:8000--1", "port that does not exist"),
        ("http://host:0-3", "port that does not exist"),
        ("http://host:65535-65536", "port that does not exist"),
        ("http://host:1-65535", "more than 64 ports"),
        ("http://host:1-64,100", "more than 64 ports"),
        ("http://host/../x", '"." or ".."'),
        ("http://host/%2e%2e/x", "not of the form"),
        ("http://host//x", "not of the form"),
        ("http://-host", "no host name"),
        ("http://a..b", "no host name"),
        ("http://host.", "no host name"),
        ("http://" + "a" * 64, "no host name"),
        ("http://" + "a." * 130 + "b", "no host name"),
        ("http://127.1", "neither a name nor an address"),
        ("http://2130706433", "neither a name nor an address"),
        ("http://0x7f.0.0.1", "neither a name nor an address"),
        ("http://0x7f000001", "neither a name nor an address"),
        ("http://256.0.0.1", "neither a name nor an address"),
        ("http://010.0.0.1", "neither a name nor an address"),
        ("http://[::1", "not of the form"),
        ("http://[1.2.3.4]", "no IPv6 address"),
        ("http://[fe80::1%eth0]", "not of the form"),
    ],
)
def test_urls_with_two_readings_are_refused(url: str, reason: str) -> None:
    """What other parsers could read differently is refused with its reason."""
    with pytest.raises(ValueError, match=r".") as caught:
        parse_endpoint(url)
    assert reason in str(caught.value)


@given(st.text())
def test_no_text_breaks_the_parser(text: str) -> None:
    """Random text is refused with a reason and a remedy."""
    reason = ""
    try:
        parse_endpoint(text)
    except ValueError as error:
        reason = str(error)
    assert ";" in reason


@pytest.mark.parametrize("secret", ["a b", "a\nb", "a\tb", "é", "a\x7f"])
def test_secrets_that_no_header_carries_are_told_apart(secret: str) -> None:
    """White space, control characters and anything beyond ASCII are not header safe."""
    assert not is_header_safe(secret)
    assert is_header_safe("ps_live_abc-._~!")
