"""Registered endpoints as the control plane tells nodes of them."""

import msgspec

PATH = "/internal/v1/registrations"


class RegistrationsRequest(msgspec.Struct, frozen=True):
    """Node to control plane: what is registered?"""

    upstream: str
    """For the upstream of this name."""
    known: bytes = b""
    """SHA-256 of the answer that the node has; nothing is answered where that is still so."""


class Registered(msgspec.Struct, frozen=True):
    """An engine that is registered."""

    url: str
    """One host; each of its ports is an endpoint."""
    weight: int = 1
    engine: str = ""
    """Its provider; "" when it did not say one."""


class Registrations(msgspec.Struct, frozen=True):
    """Control plane to node: all of them, in order of their URLs."""

    registered: tuple[Registered, ...]
