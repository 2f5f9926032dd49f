"""Endpoints behind a DNS name: its addresses, or those of the servers that its SRV records name.

A name server that does not answer, or fails, changes nothing. That there is no address is believed
when it was said `EMPTY_AFTER` times running: servers that start say it, too.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import NamedTuple, TypeAlias

import dns.exception
import msgspec
from dns.asyncresolver import Resolver
from dns.rdtypes.IN.SRV import SRV
from dns.resolver import NXDOMAIN, NoAnswer

from penstock.catalog.discovery import Source
from penstock.contract.snapshot import Endpoint
from penstock.node.backoff import doubling_s
from penstock.node.discovery.answer import Answer

EMPTY_AFTER = 3
MAX_TARGETS = 256
"""Servers that SRV records may name; further ones are not looked up."""
_LIFETIME_S = 5.0
"""Of a question, with all its repetitions."""
_EMPTY_S = 5.0
"""How long it is believed that a name has no address."""
_ADDRESSES = ("A", "AAAA")


class Pace(NamedTuple):
    """How often names are looked up."""

    least_s: float = 1.0
    """However short a record lives; and the pause after a first failure."""
    most_s: float = 30.0
    """However long a record lives, and however often nobody answered."""

    def after(self, ttl_s: float, failures: int) -> float:
        """Return the pause until the next look."""
        if failures:
            return doubling_s(failures, first_s=self.least_s, most_s=self.most_s)
        return min(max(ttl_s, self.least_s), self.most_s)


_Target: TypeAlias = tuple[str, tuple[int, ...], int]
"""A name, at which ports it is, and the weight of each."""


class _Records(NamedTuple):
    """What was said to one question: records, or that there are none."""

    texts: tuple[str, ...] = ()
    """Addresses."""
    targets: tuple[_Target, ...] = ()
    """Of SRV records of the best priority."""
    ttl_s: float = float("inf")


class Names:
    """One name and what is known of it.

    Args:
        source: Of kind `dns` or `srv`.
        resolver: Asks.
    """

    def __init__(self, source: Source, resolver: Resolver) -> None:
        """See the class."""
        self._source = source
        self._resolver = resolver
        self._known: dict[tuple[str, str], tuple[str, ...]] = {}
        """Addresses by name and type: when one cannot be asked for, these stay."""
        self._times_empty = 0

    async def look(self) -> tuple[Answer, float]:
        """Ask once; return the answer and for how many seconds it holds."""
        faults: list[str] = []
        try:
            targets, ttl_s = await self._list_targets()
        except dns.exception.DNSException as error:
            return Answer(None, _reason(error)), 0.0
        found = await asyncio.gather(*(self._find(*target, faults) for target in targets))
        self._forget_others({name for name, *_ in targets})
        endpoints = tuple(endpoint for each, _ in found for endpoint in each)
        ttl_s = min([ttl_s, *(each_ttl_s for _, each_ttl_s in found)])
        fault = faults[0] if faults else ""
        if endpoints or fault:
            self._times_empty = 0
            return Answer(endpoints or None, fault), ttl_s
        self._times_empty += 1
        if self._times_empty < EMPTY_AFTER:
            return Answer(None, "the name has no address"), 0.0
        return Answer(()), _EMPTY_S

    async def _list_targets(self) -> tuple[tuple[_Target, ...], float]:
        if self._source.ports:
            return ((self._source.name, self._source.ports, 1),), float("inf")
        records = await self._ask(self._source.name, "SRV")
        return records.targets[:MAX_TARGETS], records.ttl_s

    async def _find(
        self, name: str, ports: tuple[int, ...], weight: int, faults: list[str]
    ) -> tuple[list[Endpoint], float]:
        ttl_s = float("inf")
        for kind in _ADDRESSES:
            try:
                records = await self._ask(name, kind)
            except dns.exception.DNSException as error:
                faults.append(_reason(error))
            else:
                self._known[name, kind] = records.texts
                ttl_s = min(ttl_s, records.ttl_s)
        texts = [text for kind in _ADDRESSES for text in self._known.get((name, kind), ())]
        found = (self._source.endpoint(text, port, name) for text in texts for port in ports)
        return [msgspec.structs.replace(each, weight=weight) for each in found], ttl_s

    def _forget_others(self, names: set[str]) -> None:
        for name, kind in [*self._known]:
            if name not in names:
                del self._known[name, kind]

    async def _ask(self, name: str, kind: str) -> _Records:
        """Return the records of a name; none where its servers say that there are none.

        Raises:
            dns.exception.DNSException: Nobody said either.
        """
        try:
            answer = await self._resolver.resolve(name, kind, search=True, lifetime=_LIFETIME_S)
        except (NXDOMAIN, NoAnswer):
            return _Records()
        ttl_s = float(answer.chaining_result.minimum_ttl)
        if kind != "SRV":
            return _Records(texts=tuple(sorted(record.to_text() for record in answer)), ttl_s=ttl_s)
        records = [record for record in answer if isinstance(record, SRV)]
        best = min(record.priority for record in records)
        return _Records(
            targets=tuple(
                sorted(
                    (
                        record.target.to_text(omit_final_dot=True).lower(),
                        (record.port,),
                        max(1, record.weight),
                    )
                    for record in records
                    # A single dot says that the service is not offered.
                    if record.priority == best and record.target.labels != (b"",)
                )
            ),
            ttl_s=ttl_s,
        )


async def follow_name(
    source: Source, make_resolver: Callable[[], Resolver], pace: Pace, random: Callable[[], float]
) -> AsyncGenerator[Answer, None]:
    """Yield what a name stands for, each time that its records ran out.

    Args:
        source: Of kind `dns` or `srv`.
        make_resolver: Returns one that knows which name servers there are.
        pace: How often.
        random: Returns a number in [0, 1): nodes do not ask in step.
    """
    names: Names | None = None
    failures = 0
    while True:
        answer, ttl_s = Answer(None, "no name server is known"), 0.0
        try:
            names = names or Names(source, make_resolver())
        except (dns.exception.DNSException, OSError) as error:
            answer = Answer(None, _reason(error))
        else:
            answer, ttl_s = await names.look()
        failures = failures + 1 if answer.fault else 0
        yield answer
        await asyncio.sleep(pace.after(ttl_s, failures) * (1 - random() / 4))


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
