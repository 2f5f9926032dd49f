"""Whom clients of HTTP trust."""

import ssl

import pytest

from penstock.kit.tls import verify_for


@pytest.mark.parametrize("url", ["https://control.example:8443", "HTTPS://control.example"])
def test_https_is_verified(url: str) -> None:
    """Certificates are checked where there are some."""
    assert verify_for(url) is True


@pytest.mark.parametrize("url", ["http://127.0.0.1:8081", "http://https:80", ""])
def test_elsewhere_nobody_is_trusted(url: str) -> None:
    """Without TLS nothing is loaded; were it spoken after all, no certificate would do."""
    context = verify_for(url)
    assert isinstance(context, ssl.SSLContext)
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.cert_store_stats()["x509_ca"] == 0
