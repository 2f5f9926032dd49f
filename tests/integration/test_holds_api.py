"""What nodes say to the control plane of holds."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import msgspec
import pytest
from fastapi import FastAPI
from tests.fakes.admin_rig import expect_problem
from tests.fakes.budget_rig import BudgetRig
from tests.fakes.organizations import NOW_US, create_place

from penstock.contract.money import FreeRequest, HoldAnswer, HoldAsk, HoldRequest
from penstock.control.authentication import create_bearer
from penstock.control.money import create_holds_router
from penstock.control.problems import install_problems
from penstock.kit.clock import ManualClock
from penstock.storage.database import Database

TOKEN = "node-token-of-these-tests"
PATHS = ("/internal/v1/holds", "/internal/v1/holds/free")


@dataclass
class Node:
    """A node that asks the control plane."""

    client: httpx.AsyncClient
    rig: BudgetRig

    async def post(self, path: str, message: Any) -> httpx.Response:
        """Send a message, or bytes as they are."""
        content = message if isinstance(message, bytes) else msgspec.msgpack.encode(message)
        return await self.client.post(path, content=content)

    def request(self, *asks: HoldAsk, **members: Any) -> HoldRequest:
        """Return a taking of this organization's."""
        values = {
            "producer": "node-1/0",
            "epoch": 1,
            "take_id": "take-1",
            "organization": self.rig.organization.id,
            "asks": asks,
            **members,
        }
        return HoldRequest(**values)


@pytest.fixture
async def node(database: Database) -> AsyncIterator[Node]:
    """A node and an organization with a price."""
    app = FastAPI()
    install_problems(app)
    authenticate = create_bearer(TOKEN.encode(), "nodeToken", "the token")
    clock = ManualClock(NOW_US * 1_000)
    app.include_router(create_holds_router(database, clock, authenticate))
    rig = BudgetRig(database, *await create_place(database))
    await rig.add_price("small")
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app),
        base_url="http://control",
        headers={"authorization": f"Bearer {TOKEN}"},
    ) as client:
        yield Node(client, rig)


@pytest.mark.parametrize("path", PATHS)
async def test_anonymous_holds_nothing(node: Node, path: str) -> None:
    """Without the node's token nothing is held or freed."""
    for headers in ({"authorization": ""}, {"authorization": "Bearer another-token"}):
        answer = await node.client.post(path, content=b"", headers=headers)
        assert answer.status_code == 401


async def test_a_budget_of_another_organization_is_not_held(node: Node) -> None:
    """It is answered like one that is gone, and nothing of it is held."""
    other = BudgetRig(node.rig.database, *await create_place(node.rig.database, "other"))
    budget = await other.add_budget()
    answer = await node.post(PATHS[0], node.request(HoldAsk(budget.id, "", 5, 5)))
    gone = await node.post(PATHS[0], node.request(HoldAsk("bud_gone", "", 5, 5), take_id="2"))
    assert answer.content == gone.content
    assert await other.windows(budget) == []


async def test_a_node_holds_and_frees(node: Node) -> None:
    """A taking holds once, however often it is sent; what is freed is free once."""
    budget = await node.rig.add_budget()
    request = node.request(HoldAsk(budget.id, "", 5, 500))
    answers = [await node.post(PATHS[0], request) for _ in range(2)]
    assert answers[0].headers["content-type"] == "application/msgpack"
    first, second = (msgspec.msgpack.decode(one.content, type=HoldAnswer) for one in answers)
    assert first == second
    assert first.holds is not None
    assert (await node.rig.window(budget)).held == 500
    free = FreeRequest("node-1/0", 1, ((first.holds[0].id, 200),))
    for _ in range(2):
        assert (await node.post(PATHS[1], free)).status_code == 204
    assert (await node.rig.window(budget)).held == 300
    over = FreeRequest("node-1/0", 1, (), is_over=True)
    assert (await node.post(PATHS[1], over)).status_code == 204
    assert (await node.rig.window(budget)).held == 0


ASK = HoldAsk("bud_1", "", 1, 2)


BAD_TAKINGS = (
    {"asks": ()},
    {"asks": (ASK, ASK)},
    {"asks": tuple(HoldAsk(f"bud_{number}", "", 1, 2) for number in range(17))},
    {"asks": (HoldAsk("bud_1", "", 3, 2),)},
    {"asks": (HoldAsk("bud_1", "", -1, 2),)},
    {"asks": (HoldAsk("bud_1", "nul\0", 1, 2),)},
    {"asks": (HoldAsk("bud_1", "", 1, 2**64 - 1),)},
    {"take_id": ""},
    {"producer": "x" * 300},
    {"organization": "nul\0"},
    {"epoch": -1},
    {"format": 2},
)


async def test_bad_takings_are_refused(node: Node, subtests: pytest.Subtests) -> None:
    """What no node of ours would say is 400, and nothing is held."""
    for members in BAD_TAKINGS:
        with subtests.test(members=members):
            answer = await node.post(PATHS[0], node.request(**{"asks": (ASK,), **members}))
            expect_problem(answer, 400, "err:control:holds:invalid")


@pytest.mark.parametrize("path", PATHS)
async def test_what_cannot_be_read_is_refused(node: Node, path: str) -> None:
    """Bytes that are no message are 400."""
    for content in (b"", b"\xc1", b"\x90", b"{}"):
        expect_problem(await node.post(path, content), 400, "err:control:holds:invalid")


async def test_bad_freeings_are_refused(node: Node) -> None:
    """Amounts below 0 and impossible names are 400."""
    for freed in ((("hld_1", -1),), (("nul\0", 1),)):
        answer = await node.post(PATHS[1], FreeRequest("node-1/0", 1, freed))
        expect_problem(answer, 400, "err:control:holds:invalid")
