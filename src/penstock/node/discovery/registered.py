"""Endpoints that engines registered with the control plane, which keeps their leases."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Callable
from ipaddress import ip_address
from typing import Protocol

import msgspec

from penstock.catalog.discovery import Source
from penstock.catalog.rules import parse_endpoints
from penstock.contract.registrations import PATH, Registrations, RegistrationsRequest
from penstock.contract.snapshot import Endpoint
from penstock.kit.addresses import may_connect
from penstock.node.backoff import doubling_s
from penstock.node.calls import NotAnsweredError
from penstock.node.discovery.answer import Answer

PERIOD_S = 2.0
"""From one question to the next."""
_LAST_S = 30.0

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Registrations).decode


class Calls(Protocol):
    """The way to the control plane: `node.calls.ControlCalls`."""

    async def post(self, path: str, content: bytes) -> bytes:
        """Return the answer's body."""


async def follow_registered(
    source: Source, calls: Calls, random: Callable[[], float]
) -> AsyncGenerator[Answer, None]:
    """Yield what is registered, again and again.

    Args:
        source: Of kind `registered`.
        calls: Reaches the control plane.
        random: Returns a number in [0, 1): nodes do not ask in step.
    """
    known, last, failures = b"", Answer(None), 0
    while True:
        asking = _encode(RegistrationsRequest(source.name, known))
        try:
            content = await calls.post(PATH, asking)
            if content:
                last = Answer(read_registered(source, content))
                known = hashlib.sha256(content).digest()
            answer, failures = last, 0
        except (NotAnsweredError, ValueError) as error:
            answer, failures = Answer(None, f"the control plane: {error}"), failures + 1
        yield answer
        pause_s = doubling_s(failures, first_s=PERIOD_S, most_s=_LAST_S) if failures else PERIOD_S
        await asyncio.sleep(pause_s * (1 - random() / 4))


def read_registered(source: Source, content: bytes) -> tuple[Endpoint, ...]:
    """Return the endpoints of an answer that are where the source has them.

    Others were registered while it named other networks.

    Raises:
        ValueError: It is no answer, or of a newer control plane.
    """
    return tuple(
        msgspec.structs.replace(
            endpoint, server_name=source.server_name, weight=each.weight, engine=each.engine
        )
        for each in _decode(content).registered
        for endpoint in parse_endpoints(each.url)
        if may_connect(ip_address(endpoint.host), source.networks)
    )
