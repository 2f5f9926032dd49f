"""Endpoints behind DNS names, asked of a real server."""

from collections.abc import AsyncIterator

import pytest
from tests.fakes.dns_server import DnsServer, running_dns

from penstock.catalog.discovery import parse_source
from penstock.contract.snapshot import Endpoint
from penstock.node.discovery.answer import Answer
from penstock.node.discovery.names import EMPTY_AFTER, Names, Pace, follow_name

SOURCE = parse_source("dns://vllm.models.svc:8000?path=/serve")
NAME = SOURCE.name


@pytest.fixture
async def server() -> AsyncIterator[DnsServer]:
    """Return a server that knows no name."""
    async with running_dns() as found:
        yield found


def _at(host: str) -> Endpoint:
    return Endpoint("http", host, 8000, "/serve", NAME)


async def test_all_addresses_of_both_families_are_endpoints(server: DnsServer) -> None:
    """Each address is one, and `Host` says the name; it holds as long as the shortest record."""
    server.records = {
        (NAME, "A"): ["10.0.0.1", "10.0.0.2"],
        (NAME, "AAAA"): ["fd00::1"],
    }
    server.ttl_s = 7
    answer, ttl_s = await Names(SOURCE, server.make_resolver()).look()
    assert answer == Answer((_at("10.0.0.1"), _at("10.0.0.2"), _at("fd00::1")))
    assert ttl_s == 7
    assert _at("10.0.0.1").authority == f"{NAME}:8000"


async def test_each_rank_behind_an_address_is_an_endpoint(server: DnsServer) -> None:
    """Of several ports there is one at each address, and the name is looked up once."""
    server.records = {("gpu", "A"): ["10.0.0.1", "10.0.0.2"]}
    source = parse_source("dns://gpu:8000-8001")
    answer, _ = await Names(source, server.make_resolver()).look()
    found = [(each.host, each.port) for each in answer.endpoints or ()]
    assert found == [(f"10.0.0.{host}", 8000 + rank) for host in (1, 2) for rank in (0, 1)]


async def test_servers_of_srv_records_are_endpoints(server: DnsServer) -> None:
    """Those of the best priority, each with its own port, name and weight."""
    service = "_http._tcp.models.svc"
    server.records = {
        (service, "SRV"): ["1 5 8001 b.svc.", "1 9 8000 a.svc.", "2 1 9 spare.svc.", "1 1 1 ."],
        ("a.svc", "A"): ["10.0.0.1"],
        ("b.svc", "A"): ["10.0.0.2"],
        ("spare.svc", "A"): ["10.0.0.3"],
    }
    answer, _ = await Names(parse_source(f"srv://{service}"), server.make_resolver()).look()
    assert answer.endpoints == (
        Endpoint("http", "10.0.0.1", 8000, "", "a.svc", weight=9),
        Endpoint("http", "10.0.0.2", 8001, "", "b.svc", weight=5),
    )


async def test_a_server_that_fails_takes_nothing_away(server: DnsServer) -> None:
    """What fails for one type stays as it was; when nothing is known, that is no empty set."""
    names = Names(SOURCE, server.make_resolver())
    server.records = {(NAME, "A"): ["10.0.0.1"], (NAME, "AAAA"): ["fd00::1"]}
    assert (await names.look())[0].fault == ""
    server.records[NAME, "A"] = ["10.0.0.2"]
    server.failing = {"AAAA"}
    answer, _ = await names.look()
    assert answer.endpoints == (_at("10.0.0.2"), _at("fd00::1"))
    assert "SERVFAIL" in answer.fault
    server.failing = {"A", "AAAA"}
    for _ in range(EMPTY_AFTER + 1):
        answer, _ = await Names(SOURCE, server.make_resolver()).look()
        assert answer.endpoints is None
        assert answer.fault


async def test_that_there_is_no_address_is_believed_the_third_time(server: DnsServer) -> None:
    """A name that does not exist, said once or twice, changes nothing; a failure counts anew."""
    names = Names(SOURCE, server.make_resolver())
    said = [await names.look() for _ in range(EMPTY_AFTER - 1)]
    server.failing = {"A"}
    said.append(await names.look())
    server.failing = set()
    said += [await names.look() for _ in range(EMPTY_AFTER - 1)]
    assert [answer.endpoints for answer, _ in said] == [None] * len(said)
    assert (await names.look())[0] == Answer(())
    server.records = {(NAME, "A"): ["10.0.0.1"]}
    assert (await names.look())[0].endpoints == (_at("10.0.0.1"),)


async def test_a_name_is_looked_up_again_and_again(server: DnsServer) -> None:
    """Its changes are seen; when there is no resolver to ask with, that is an answer, too."""
    server.records = {(NAME, "A"): ["10.0.0.1"]}
    pace = Pace(0.001, 0.002)
    answers = follow_name(SOURCE, server.make_resolver, pace, lambda: 0.0)
    assert (await anext(answers)).endpoints == (_at("10.0.0.1"),)
    server.records = {(NAME, "A"): ["10.0.0.2"]}
    assert (await anext(answers)).endpoints == (_at("10.0.0.2"),)
    await answers.aclose()

    def fail() -> None:
        raise OSError

    answers = follow_name(SOURCE, fail, pace, lambda: 0.0)  # type: ignore[arg-type]  # it never returns
    assert [(await anext(answers)).endpoints for _ in range(2)] == [None, None]
    await answers.aclose()


def test_pauses_are_bounded() -> None:
    """No name is asked for more than once a second, and each twice a minute, whatever happens."""
    pace = Pace()
    assert [pace.after(ttl_s, 0) for ttl_s in (0, 5, 1e9, float("inf"))] == [1, 5, 30, 30]
    assert [pace.after(0, failures) for failures in (1, 2, 9, 10**6)] == [1, 2, 30, 30]
