"""Price books over HTTP: what nodes are told of contracts, and what cannot be."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.fakes.admin_rig import AdminRig, expect_problem, run_admin_api
from tests.fakes.catalogs import create_path
from tests.fakes.followers import Follower, asking

from penstock.contract import money
from penstock.contract.money import PRICE_SCALE
from penstock.contract.snapshot_store import prices_name
from penstock.rating.price_rules import NOTICE_S
from penstock.storage.database import Database

DRAFT = {"currency": "EUR", "kind": "list", "name": "draft"}
STEPS = {"scheme": "graduated", "tiers": [{"price": "3", "up_to": 10}, {"price": "1"}]}


@pytest.fixture
async def rig(database: Database, tmp_path: Path) -> AsyncIterator[AdminRig]:
    """The admin API over an empty database of each kind."""
    async with run_admin_api(database, tmp_path / "data") as rig:
        yield rig


@pytest.fixture
async def alias(rig: AdminRig, database: Database) -> str:
    """Id of an open alias."""
    await create_path(database, "small", is_open=True)
    (found,) = (await rig.call("GET", "/aliases?name=small")).json()["data"]
    return str(found["id"])


def _told(records: dict[bytes, bytes | None], organization: str = "") -> list[money.Price] | None:
    found = records.get(prices_name("small", organization))
    return None if found is None else msgspec.msgpack.decode(found, type=list[money.Price])


async def test_a_contract_reaches_nodes_beside_the_list(
    rig: AdminRig, alias: str, database: Database, tmp_path: Path
) -> None:
    """Its organization is told its dearest step and its fee, all others go on with the list."""
    project = await rig.create_project("mine")
    mine = project["organization_id"]
    body: dict[str, Any] = {"alias_id": alias, "currency": "EUR"}
    book = await rig.create(
        "/price_books", name="mine-1", kind="contract", currency="EUR", organization_id=mine
    )
    fee = {"requests": {"price": "0.5"}}
    contract = {**body, "book_id": book["id"], "output": "2"}
    async with asking(database) as ask:
        follower = Follower(tmp_path / "node", ask)
        await rig.create("/prices", **body, input="1", output="4")
        await follower.follow()
        assert _told(follower.records(), mine) is None
        (listed,) = _told(follower.records()) or []
        assert (listed.input, listed.output, listed.request) == (PRICE_SCALE, 4 * PRICE_SCALE, 0)
        rates = {"input": STEPS, **fee}
        await rig.create("/prices", **contract, rates=rates)
        await follower.follow()
        assert _told(follower.records()) == [listed]
        first, second = _told(follower.records(), mine) or []
        assert (first.input, second.valid_from_s - first.valid_from_s) == (PRICE_SCALE, NOTICE_S)
        assert (second.input, second.output) == (3 * PRICE_SCALE, 2 * PRICE_SCALE)
        assert second.request == PRICE_SCALE // 2
        later = {**contract, "rates": {"input": STEPS}, "service_tier": "flex"}
        dear = later | {"output": "9", "valid_from": "2025-06-16T00:00:00Z"}
        taken_back = await rig.create("/prices", **dear)
        await follower.follow()
        assert [one.output // PRICE_SCALE for one in _told(follower.records(), mine) or []] == [
            4,
            2,
            9,
        ]
        await rig.call("DELETE", f"/prices/{taken_back['id']}")
        await follower.follow()
        assert _told(follower.records(), mine) == [first, second]
        assert follower.fulls == 1


async def test_what_has_no_bound_or_has_ended_is_none_to_nodes(
    rig: AdminRig, alias: str, database: Database, tmp_path: Path
) -> None:
    """A price for images, and the time behind an end: hard budgets refuse the alias then."""
    body: dict[str, Any] = {"alias_id": alias, "currency": "EUR", "input": "1", "output": "1"}
    ended = await rig.create("/prices", **body, valid_to="2025-07-01T00:00:00Z")
    inside = await rig.call(
        "POST", "/prices", body | {"input": "0", "valid_from": "2025-06-20T00:00:00Z"}
    )
    expect_problem(inside, 409, "err:control:prices:exists")
    images = {"images": {"price": "0.01"}}
    await rig.create("/prices", **body, rates=images, valid_from="2025-08-01T00:00:00Z")
    async with asking(database) as ask:
        follower = Follower(tmp_path / "node", ask)
        await follower.follow()
        told = _told(follower.records()) or []
    assert [(one.is_none, one.is_unpriced) for one in told] == [
        (False, False),
        (True, True),
        (True, False),
    ]
    assert ended["valid_to"] == "2025-07-01T00:00:00.000000Z"


@pytest.mark.parametrize(
    "members",
    [
        {"name": "no name"},
        {"name": "list-EUR"},
        {"currency": "eur"},
        {"kind": "contract"},
        {"organization_id": "mine"},
    ],
)
async def test_bad_books_are_refused(rig: AdminRig, members: dict[str, str]) -> None:
    """With the member that is wrong; a name is taken once."""
    project = await rig.create_project("mine")
    if "organization_id" in members:
        members = {"organization_id": project["organization_id"]}
    answer = await rig.call("POST", "/price_books", DRAFT | members)
    expect_problem(answer, 400, "err:control:prices:book_invalid")
    await rig.create("/price_books", **DRAFT)
    again = await rig.call("POST", "/price_books", DRAFT)
    expect_problem(again, 409, "err:control:prices:book_exists")


BAD_RATES = (
    ({"tokens": {"price": "1"}}, "rates"),
    ({"input": {"price": "1"}}, "input"),
    ({"images": {"price": "-1"}}, "rates.images"),
    ({"images": {"price": "1", "per": 7}}, "rates.images"),
    ({"images": {"price": "1001"}}, "rates.images"),
    ({"images": {"price": 1}}, "rates.images"),
    ({"audio_input": {"scheme": "graduated", "price": "1"}}, "rates.audio_input"),
    (
        {"audio_input": {"scheme": "volume", "tiers": [{"price": "1", "up_to": 5}]}},
        "rates.audio_input",
    ),
)


async def test_bad_rates_are_refused(rig: AdminRig, alias: str, subtests: pytest.Subtests) -> None:
    """With the meter that is wrong, and no price is set."""
    for rates, names in BAD_RATES:
        with subtests.test(rates=rates, names=names):
            body = {
                "alias_id": alias,
                "currency": "EUR",
                "input": "1",
                "output": "1",
                "rates": rates,
            }
            answer = await rig.call("POST", "/prices", body)
            expect_problem(answer, 400, "err:control:prices:invalid")
            assert f"`{names}`" in answer.json()["detail"]
            assert (await rig.call("GET", "/prices")).json()["data"] == []
