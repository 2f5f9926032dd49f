"""Engines that register themselves: from what they say to the endpoints that nodes know."""

import asyncio
import hashlib
import re
import shlex
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from tests.fakes.admin_rig import ADMIN_TOKEN, AdminRig, expect_problem, run_admin_api
from tests.fakes.control_api import run, run_json
from tests.fakes.control_server import serving_control
from tests.fakes.databases import until_somebody_waits
from tests.fakes.organizations import ALL, actor

from penstock.access.peppers import Peppers, read_peppers
from penstock.catalog import upstreams
from penstock.catalog.discovery import parse_source
from penstock.catalog.registrations import service
from penstock.catalog.tables import Registrations
from penstock.contract import registrations as contract
from penstock.contract.snapshot import MAX_FOUND, Endpoint
from penstock.control.authentication import create_bearer
from penstock.control.registrations import ENGINES_PATH, Leases, create_registrations_router
from penstock.node.discovery.registered import read_registered
from penstock.storage.database import Database
from penstock.storage.errors import DatabaseUnavailableError
from penstock.storage.scope import Scope
from penstock.storage.sessions import ReadSession

SOURCE = "registered://gpu?networks=10.0.0.0/8,fd00::/8"
PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "register-endpoints.md"
NODE_TOKEN = "node-token-of-these-tests"
ONE, TWO = "http://10.0.0.1:8000", "http://10.0.0.2:8000"


class Site:
    """A control plane, one upstream whose engines register, and the token that they do it with."""

    def __init__(self, rig: AdminRig, database: Database) -> None:
        """See the class."""
        self.rig = rig
        self.database = database
        self.token = ""
        self.upstream: dict[str, Any] = {}
        self.leases = Leases(database, rig.clock)

    def serve(self, peppers: Peppers) -> None:
        """Have the control plane answer engines and nodes."""
        node = create_bearer(NODE_TOKEN.encode(), "nodeToken", "of a node")
        router = create_registrations_router(self.database, peppers, self.rig.clock, node)
        self.rig.app.include_router(router)

    async def make(self, discover: str | None = SOURCE, name: str = "gpu") -> None:
        """Make the upstream and a token for it."""
        place = {"endpoints": [ONE]} if discover is None else {"discover": discover}
        self.upstream = await self.rig.create("/upstreams", name=name, provider="vllm", **place)
        made = await self.rig.create("/registration_tokens", upstream_id=self.upstream["id"])
        self.token = made["secret"]

    async def put(self, url: str = ONE, *, token: str | None = None, **members: Any) -> Any:
        """Register, or renew."""
        headers = {"authorization": f"Bearer {token or self.token}"}
        body = {"url": url, **members}
        return await self.rig.client.put(ENGINES_PATH, json=body, headers=headers)

    async def withdraw(self, url: str) -> httpx.Response:
        """Withdraw."""
        headers = {"authorization": f"Bearer {self.token}"}
        return await self.rig.client.delete(ENGINES_PATH, params={"url": url}, headers=headers)

    async def ask(self, known: bytes = b"", upstream: str = "gpu") -> httpx.Response:
        """Ask as a node."""
        return await self.rig.client.post(
            contract.PATH,
            content=msgspec.msgpack.encode(contract.RegistrationsRequest(upstream, known)),
            headers={"authorization": f"Bearer {NODE_TOKEN}"},
        )

    async def held(self) -> list[str]:
        """Return the URLs that nodes are told."""
        answer = msgspec.msgpack.decode((await self.ask()).content, type=contract.Registrations)
        return [each.url for each in answer.registered]

    async def shown(self) -> list[tuple[str, str]]:
        """Return URL and status of what the admin API shows."""
        rows = (await self.rig.call("GET", "/registrations")).json()["data"]
        return sorted((row["url"], row["status"]) for row in rows)

    async def pass_time(self, seconds: int) -> None:
        """Let the time pass, while the control plane looks as often as it does."""
        for _ in range(seconds):
            self.rig.clock.advance(1)
            await self.leases.end()


@pytest.fixture
async def site(database: Database, tmp_path: Path) -> AsyncIterator[Site]:
    """A site with an empty database of each kind."""
    async with run_admin_api(database, tmp_path / "data") as rig:
        site = Site(rig, database)
        site.serve(read_peppers(rig.data / "secrets"))
        yield site


async def test_only_who_has_the_upstreams_token_registers(site: Site) -> None:
    """Nobody, another credential, a broken or a deleted token: 401; another upstream's is its."""
    await site.make()
    anonymous = await site.rig.client.put(ENGINES_PATH, json={"url": ONE})
    expect_problem(anonymous, 401, "err:control:auth:token_missing")
    broken = site.token[:-1] + ("a" if site.token[-1] != "a" else "b")
    for wrong in (ADMIN_TOKEN, NODE_TOKEN, broken, "x", "ps_reg_" + "a" * 12 + "_" + "a" * 38):
        expect_problem(await site.put(token=wrong), 401, "err:control:auth:token_wrong")
    assert await site.held() == []
    mine = site.token
    await site.make("registered://other?networks=10.0.0.0/8", "other")
    await site.put(TWO)
    await site.put(ONE, token=mine)
    assert await site.held() == [ONE]
    [row] = (
        await site.rig.call("GET", f"/registration_tokens?upstream_id={site.upstream['id']}")
    ).json()["data"]
    assert "secret" not in row
    assert (await site.rig.call("DELETE", f"/registration_tokens/{row['id']}")).status_code == 204
    expect_problem(await site.put(TWO), 401, "err:control:auth:token_wrong")


async def test_a_lease_holds_as_long_as_it_is_renewed(site: Site) -> None:
    """It lapses when it is not renewed in time, and comes back whole with the next word."""
    await site.make()
    answer = (await site.put(ONE, ttl_s=30, weight=3, engine="vllm")).json()
    assert (answer["url"], answer["ttl_s"], answer["renew_within_s"]) == (ONE, 30, 10)
    await site.put(TWO, ttl_s=10)
    first = await site.ask()
    for _ in range(4):
        await site.pass_time(9)
        await site.put(TWO, ttl_s=10)
    assert await site.held() == [TWO]
    assert await site.shown() == [(ONE, "lapsed"), (TWO, "held")]
    await site.put(ONE, ttl_s=30, weight=3, engine="vllm")
    assert (await site.ask()).content == first.content
    source = parse_source(SOURCE)
    found = [Endpoint("http", "10.0.0.1", 8000, weight=3, engine="vllm")]
    found += [Endpoint("http", "10.0.0.2", 8000)]
    assert read_registered(source, first.content) == tuple(found)
    narrow = parse_source("registered://gpu?networks=10.0.0.2")
    assert read_registered(narrow, first.content) == (found[1],)


async def test_nothing_lapses_while_nobody_could_renew(site: Site) -> None:
    """A control plane that was away ends a lease only once it could have been renewed again."""
    await site.make()
    await site.put(ONE, ttl_s=30)
    site.rig.clock.advance(3_600)
    site.leases = Leases(site.database, site.rig.clock)  # it is started anew
    await site.pass_time(29)
    assert await site.held() == [ONE]
    site.rig.clock.advance(3_600)  # the database was away meanwhile, so it could not look
    await site.pass_time(29)
    assert await site.held() == [ONE]
    await site.pass_time(3)
    assert await site.held() == []


class _Away:
    """A database that is away for reads as long as it is said to be."""

    def __init__(self, database: Database) -> None:
        self.is_away = False
        self.write = database.write
        self._database = database

    def read(self, scope: Scope) -> AbstractAsyncContextManager[ReadSession]:
        if self.is_away:
            raise DatabaseUnavailableError
        return self._database.read(scope)


async def test_nothing_lapses_while_the_database_is_away(site: Site) -> None:
    """However short that was: who could not renew meanwhile gets a whole lease to do it."""
    await site.make()
    database: Any = _Away(site.database)
    site.leases = Leases(database, site.rig.clock)
    await site.pass_time(20)
    await site.put(ONE, ttl_s=10)
    await site.pass_time(3)
    database.is_away = True
    for _ in range(9):
        site.rig.clock.advance(1)
        with pytest.raises(DatabaseUnavailableError):
            await site.leases.end()
    database.is_away = False
    await site.pass_time(9)
    assert await site.held() == [ONE]
    await site.pass_time(3)
    assert await site.held() == []


async def test_who_withdraws_gets_no_new_requests(site: Site) -> None:
    """At once, and said twice it is the same; of others nothing changes."""
    await site.make()
    await asyncio.gather(*(site.put(url) for url in (ONE, TWO, ONE, ONE)))
    assert await site.held() == [ONE, TWO]
    for _ in range(2):
        assert (await site.withdraw(ONE)).status_code == 204
    assert await site.held() == [TWO]
    assert (await site.rig.client.delete(ENGINES_PATH, params={"url": TWO})).status_code == 401
    assert await site.held() == [TWO]


async def test_an_engine_is_one_however_it_writes_its_url(site: Site) -> None:
    """It has one lease and one share, renews it, and withdraws by any of them."""
    await site.make()
    for url in (
        "http://10.0.0.1",
        "http://10.0.0.1/",
        "http://10.0.0.1:80",
        "http://10.0.0.1:080/",
        "http://[::ffff:10.0.0.1]",
        "http://[::FFFF:a00:1]:80/",
    ):
        answer = await site.put(url, weight=2)
        assert answer.json()["url"] == "http://10.0.0.1:80"
    await site.put("http://[FD00::0:1]:8001,8000/serve/")
    assert await site.held() == ["http://10.0.0.1:80", "http://[fd00::1]:8000-8001/serve"]
    assert len(await site.shown()) == 2
    assert (await site.withdraw("http://[::ffff:10.0.0.1]/")).status_code == 204
    assert await site.held() == ["http://[fd00::1]:8000-8001/serve"]
    assert (await site.withdraw("nonsense")).status_code == 204


async def test_an_upstream_that_is_just_deleted_takes_none(site: Site) -> None:
    """An engine that registers meanwhile is told that there is none, as later ones are."""
    await site.make()
    async with site.database.write(ALL) as session:
        await upstreams.delete_upstream(session, actor(), site.upstream["id"])
        registering = asyncio.create_task(site.put(ONE))
        if session.is_postgresql:  # on the other one it has to wait before it looks
            await until_somebody_waits(session._connection)
    answer = await registering
    # Where it could not look before, it comes too late with its token.
    assert answer.status_code in {401, 404}
    assert await site.shown() == []


async def test_nodes_hear_only_what_is_new(site: Site) -> None:
    """Who has the answer is told nothing, and nobody without a node's token is."""
    await site.make()
    await site.put(ONE)
    content = (await site.ask()).content
    again = await site.ask(hashlib.sha256(content).digest())
    assert (again.status_code, again.content) == (204, b"")
    assert (await site.rig.client.post(contract.PATH, content=content)).status_code == 401
    headers = {"authorization": f"Bearer {site.token}"}
    other = await site.rig.client.post(contract.PATH, content=content, headers=headers)
    assert other.status_code == 401
    unknown = await site.ask(upstream="none")
    assert msgspec.msgpack.decode(
        unknown.content, type=contract.Registrations
    ) == contract.Registrations(())


WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "missing required field `url`"),
    ({"url": "http://gpu:8000"}, "has a name"),
    ({"url": "http://192.168.0.1:8000"}, "none of the upstream's networks"),
    ({"url": "http://127.0.0.1:8000"}, "none of the upstream's networks"),
    ({"url": "http://169.254.169.254"}, "cloud's metadata"),
    ({"url": "http://[::ffff:169.254.169.254]"}, "cloud's metadata"),
    ({"url": "http://10.0.0.1:8000@evil"}, "user name or password"),
    ({"url": "grpc://10.0.0.1:8001"}, "of gRPC"),
    ({"url": "http://10.0.0.1:8000-9000"}, "more than 64 ports"),
    ({"url": ONE, "ttl_s": 9}, "ttl_s"),
    ({"url": ONE, "ttl_s": 301}, "ttl_s"),
    ({"url": ONE, "weight": 0}, "weight"),
    ({"url": ONE, "engine": "none"}, "names no provider"),
    ({"url": ONE, "upstream": "other"}, "unknown field `upstream`"),
]
"""What an engine says, and why it is refused."""


async def test_what_cannot_be_an_endpoint(site: Site) -> None:
    """It is refused with the reason, and nothing of it is kept."""
    await site.make()
    headers = {"authorization": f"Bearer {site.token}"}
    for body, reason in WRONG:
        answer = await site.rig.client.put(ENGINES_PATH, json=body, headers=headers)
        expect_problem(answer, 400, "err:control:catalog:registration_invalid")
        assert reason in answer.json()["detail"]
    assert await site.shown() == []


async def test_an_upstream_that_lists_its_endpoints_takes_none(site: Site) -> None:
    """Engines register where the operator wants it and nowhere else."""
    await site.make(None)
    expect_problem(await site.put(TWO), 409, "err:control:catalog:registration_refused")
    path = f"/upstreams/{site.upstream['id']}"
    wrong = {"endpoints": [], "discover": "registered://other?networks=10.0.0.0/8"}
    answer = await site.rig.call("PATCH", path, wrong)
    expect_problem(answer, 400, "err:control:catalog:invalid")
    assert "another upstream" in answer.json()["detail"]


async def test_the_number_of_engines_has_a_bound(site: Site) -> None:
    """One too many is refused; one that is there renews, and what lapsed makes room."""
    await site.make()
    await site.put(ONE, ttl_s=300)
    now_us = site.rig.clock.wall_ns() // 1_000
    others = [
        {
            "id": f"reg_{number}",
            "upstream_id": site.upstream["id"],
            "url": f"http://10.1.{number // 250}.{number % 250}:80",
            "ttl_s": 30,
            "weight": 1,
            "engine": "",
            "expires_at": now_us + 30_000_000,
            "version": 1,
            "created_at": now_us,
            "updated_at": now_us,
        }
        for number in range(MAX_FOUND - 1)
    ]
    async with site.database.write(ALL) as session:
        await session.insert(Registrations, *others)
    expect_problem(await site.put(TWO), 409, "err:control:catalog:registrations_full")
    assert (await site.put(ONE, ttl_s=300)).status_code == 200
    await site.pass_time(32)
    assert (await site.put(TWO)).status_code == 200
    assert await site.held() == [ONE, TWO]
    async with site.database.write(ALL) as session:
        later_us = site.rig.clock.wall_ns() // 1_000 + (service.KEEP_S + 1) * 1_000_000
        await service.forget_old_registrations(session, later_us)
    assert await site.shown() == [(ONE, "held"), (TWO, "held")]


async def test_what_belongs_to_an_upstream_goes_with_it(site: Site) -> None:
    """An upstream that is deleted leaves neither tokens nor registered engines."""
    await site.make()
    await site.put(ONE)
    answer = await site.rig.call("DELETE", f"/upstreams/{site.upstream['id']}")
    assert answer.status_code == 204
    assert await site.shown() == []
    expect_problem(await site.put(ONE), 401, "err:control:auth:token_wrong")


async def test_tokens_are_kept_as_hashes(site: Site) -> None:
    """Neither lists nor the audit log say a token, and creating one is in the log."""
    await site.make()
    assert re.fullmatch(r"ps_reg_\w{12}_\w{38}", site.token)
    listed = (await site.rig.call("GET", "/registration_tokens")).text
    log = (await site.rig.call("GET", "/audit")).text
    assert "registration_token.create" in log
    assert site.token.rpartition("_")[2] not in listed + log


def test_the_page(sqlite_template: Path, tmp_path: Path) -> None:
    """Its commands work in their order, and what an engine is to say is taken."""
    page = PAGE.read_text("utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).splitlines()
    commands = [shlex.split(line)[1:] for line in lines if line.startswith("penstock ")]
    [said] = re.findall(r"-d '(.*)'", page)
    assert page.count(f"$PENSTOCK_CONTROL{ENGINES_PATH}") == 2
    with serving_control(sqlite_template, tmp_path / "data") as control:
        outputs = [run(control, *words) for words in commands[:2]]
        token = re.findall(r"ps_reg_\w+", outputs[1].stdout)[0]
        headers = {"authorization": f"Bearer {token}"}
        url = control.url + ENGINES_PATH
        lease = httpx.put(url, content=said, headers=headers)
        assert lease.status_code == 200, lease.text
        outputs += [run(control, *words) for words in commands[2:]]
        assert [each.exit_code for each in outputs] == [0] * 4
        assert re.search(rf"{lease.json()['url']}\s+held\s", outputs[2].stdout)
        gone = httpx.delete(url, params={"url": lease.json()["url"]}, headers=headers)
        assert gone.status_code == 204
        assert (
            "No engine is registered." in run(control, "registrations", "list", "gpu-pool").stdout
        )
        [listed] = run_json(control, "registrations", "tokens", "gpu-pool")
        done = run_json(control, "registrations", "delete-token", listed["id"], "--yes")
        assert done == [{"id": listed["id"], "is_deleted": True}]
        assert httpx.put(url, content=said, headers=headers).status_code == 401


async def test_tokens_move_to_a_new_pepper(database: Database, tmp_path: Path) -> None:
    """A token works on under the next pepper, and without the old one once it was shown."""
    async with run_admin_api(database, tmp_path / "data") as rig:
        site = Site(rig, database)
        await site.make()
        old = read_peppers(rig.data / "secrets").active
        both, new = Peppers({1: old, 2: b"second" * 8}), Peppers({2: b"second" * 8})
        site.serve(both)
        assert (await site.put()).status_code == 200
        async with database.read(ALL) as session:
            found = [await service.identify(session, each, site.token) for each in (both, new)]
            assert found[0] == found[1]
            assert found[1] == (found[1].token_id, site.upstream["id"], None)  # type: ignore[union-attr]  # not None
            assert await service.identify(session, Peppers({1: old}), site.token) is None
