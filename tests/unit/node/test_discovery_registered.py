"""Endpoints that engines registered, whatever the control plane that keeps them does."""

import asyncio
import hashlib
from contextlib import aclosing
from itertools import pairwise

import msgspec
import pytest
from tests.fakes.virtual_loop import run_virtual

from penstock.catalog.discovery import parse_source
from penstock.contract.registrations import (
    PATH,
    Registered,
    Registrations,
    RegistrationsRequest,
)
from penstock.contract.snapshot import Endpoint
from penstock.node.calls import NotAnsweredError, PathUnknownError
from penstock.node.discovery.answer import Answer
from penstock.node.discovery.registered import follow_registered, read_registered

SOURCE = parse_source("registered://gpu?networks=10.0.0.0/8&host=gpu.example")


class Plane:
    """A control plane that says what it is told to, and 204 to who knows it."""

    def __init__(self) -> None:
        """Have nothing registered."""
        self.answer: bytes | Exception = msgspec.msgpack.encode(Registrations(()))
        self.asked: list[RegistrationsRequest] = []

    def have(self, *registered: Registered) -> None:
        """Have these registered."""
        self.answer = msgspec.msgpack.encode(Registrations(registered))

    async def post(self, path: str, content: bytes) -> bytes:
        """Answer."""
        assert path == PATH
        asked = msgspec.msgpack.decode(content, type=RegistrationsRequest)
        self.asked.append(asked)
        if isinstance(self.answer, Exception):
            raise self.answer
        return b"" if hashlib.sha256(self.answer).digest() == asked.known else self.answer


def test_what_is_registered_is_found_and_stays() -> None:
    """It is said again while nothing is new; a control plane that fails takes nothing away."""

    async def main() -> None:
        plane = Plane()
        async with aclosing(follow_registered(SOURCE, plane, lambda: 0.0)) as answers:
            assert await anext(answers) == Answer(())
            plane.have(Registered("http://10.0.0.1:8000-8001", 2, "vllm"))
            found = tuple(
                Endpoint("http", "10.0.0.1", port, "", "gpu.example", 2, "vllm")
                for port in (8000, 8001)
            )
            assert [await anext(answers) for _ in range(3)] == [Answer(found)] * 3
            assert [len(each.known) for each in plane.asked] == [0, 32, 32, 32]
            for failure in (NotAnsweredError("away"), PathUnknownError("older"), b"no answer"):
                plane.answer = failure
                answer = await anext(answers)
                assert answer.endpoints is None
                assert answer.fault.startswith("the control plane: ")
            plane.have()
            assert await anext(answers) == Answer(())
            assert {each.upstream for each in plane.asked} == {"gpu"}

    run_virtual(main())


def test_a_control_plane_that_is_away_is_asked_less_often() -> None:
    """Every two seconds at first, then rarely, and never more rarely than twice a minute."""

    async def main() -> list[float]:
        plane, loop, times = Plane(), asyncio.get_running_loop(), []
        plane.answer = NotAnsweredError("away")
        async with aclosing(follow_registered(SOURCE, plane, lambda: 0.0)) as answers:
            for _ in range(8):
                await anext(answers)
                times.append(loop.time())
        return [after - before for before, after in pairwise(times)]

    pauses = run_virtual(main())
    assert pauses[0] == 2
    assert pauses == sorted(pauses)
    assert pauses[-1] == 30


def test_only_what_the_source_allows_is_an_endpoint() -> None:
    """Whatever the control plane says: another network, a metadata address, or no address."""
    registered = (
        Registered("http://10.0.0.1:80"),
        Registered("http://192.168.0.1:80"),
        Registered("http://127.0.0.1:80"),
    )
    content = msgspec.msgpack.encode(Registrations(registered))
    found = read_registered(SOURCE, content)
    assert [each.host for each in found] == ["10.0.0.1"]
    for url in ("http://169.254.169.254:80", "http://gpu:80", "file:///etc/passwd"):
        content = msgspec.msgpack.encode(Registrations((Registered(url),)))
        with pytest.raises(ValueError, match=r"."):
            read_registered(SOURCE, content)
