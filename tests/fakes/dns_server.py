"""A small DNS server on the loopback, which says what a test wrote down."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
from dns.asyncresolver import Resolver


class DnsServer(asyncio.DatagramProtocol):
    """Answers by UDP."""

    def __init__(self) -> None:
        """Know no name."""
        self.records: dict[tuple[str, str], list[str]] = {}
        """By name and type; a name without any does not exist."""
        self.failing: set[str] = set()
        """Types that are answered with SERVFAIL."""
        self.is_silent = False
        self.ttl_s = 3600
        self.asked: Counter[str] = Counter()
        self.port = 0

    def make_resolver(self) -> Resolver:
        """Return one that asks this server."""
        resolver = Resolver(configure=False)
        resolver.nameservers, resolver.port = ["127.0.0.1"], self.port
        return resolver

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take note of where answers go."""
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Answer."""
        query = dns.message.from_wire(data)
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True)
        kind = dns.rdatatype.to_text(question.rdtype)
        self.asked[kind] += 1
        if self.is_silent:
            return
        response = dns.message.make_response(query)
        response.flags |= dns.flags.AA
        if kind in self.failing:
            response.set_rcode(dns.rcode.SERVFAIL)
        elif texts := self.records.get((name, kind)):
            rrset = dns.rrset.from_text(question.name, self.ttl_s, "IN", kind, *texts)
            response.answer.append(rrset)
        elif not any(known == name for known, _ in self.records):
            response.set_rcode(dns.rcode.NXDOMAIN)
        self._transport.sendto(response.to_wire(), addr)


@asynccontextmanager
async def running_dns() -> AsyncIterator[DnsServer]:
    """Run a server on a free port."""
    server = DnsServer()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: server, local_addr=("127.0.0.1", 0))
    server.port = transport.get_extra_info("sockname")[1]
    try:
        yield server
    finally:
        transport.close()
