"""Whom clients of HTTP trust, looked up only where TLS is spoken."""

import ssl


def verify_for(url: str) -> ssl.SSLContext | bool:
    """Return what a client of one address is told to verify.

    Args:
        url: The only place that it asks; redirects lead to no other.

    Returns:
        True for `https`: certificates are checked against those that the system knows. For plain
        HTTP a context that trusts nobody, because to load those certificates takes each client
        50 ms, and none is ever shown.
    """
    return url[:6].lower() == "https:" or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
