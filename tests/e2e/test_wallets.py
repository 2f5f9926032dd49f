"""A prepaid organization in real processes: what it paid for is served, and nothing else."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from tests.fakes.budget_account import MILLION, create_price
from tests.fakes.control_api import run
from tests.fakes.control_server import ControlServer
from tests.fakes.limited_site import Answer, Site, running_site
from tests.fakes.production import create

from penstock.gateway.limits import LEAST_OUTPUT_TOKENS

PRICE = Decimal(3)
"""Euros for a million output tokens."""
COST = PRICE * LEAST_OUTPUT_TOKENS / MILLION
"""Of a request; so few tokens are never lowered to fewer."""
WORTH = 10
PARALLEL = 40
PATIENCE_S = 60.0
EXHAUSTED = "limits:quota_exhausted"


@dataclass
class Customer:
    """An organization that pays ahead, and what it got."""

    site: Site
    organization: str
    secret: str
    answers: Counter[int] = field(default_factory=Counter)

    def top_up(self, requests: int) -> None:
        """Pay for so many requests."""
        amount = f"{COST * requests:f}"
        create(
            self.site.admin,
            "/top-ups",
            organization_id=self.organization,
            currency="EUR",
            amount=amount,
        )

    async def ask(self, count: int) -> list[Answer]:
        """Send requests at once."""
        answers = await self.site.chat_many([self.secret], count, max_tokens=LEAST_OUTPUT_TOKENS)
        self.answers.update(answer.status for answer in answers)
        return answers

    async def ask_until_served(self, total: int) -> Answer:
        """Ask until so many were served, all in all, and one more is refused; return that one.

        A busy control plane may not answer a worker in time: then requests get 503, and ask again.
        """
        deadline = time.monotonic() + PATIENCE_S
        while True:
            refused = [one for one in await self.ask(PARALLEL) if one.status == 429]
            assert self.answers[200] <= total
            # What a worker holds and nobody needed goes back, then others may have it.
            if self.answers[200] == total and refused:
                return refused[-1]
            assert time.monotonic() < deadline, self.answers
            await asyncio.sleep(0.5)

    def wallet(self) -> tuple[Decimal, Decimal]:
        """Return what is in its wallet, and what of that is held."""
        query = {"organization_id": self.organization}
        (budget,) = self.site.admin.get("/budgets", params=query).json()["data"]
        assert budget["is_wallet"] is True
        (window,) = self.site.admin.get(f"/budgets/{budget['id']}").json()["windows"]
        return Decimal(window["balance"]), Decimal(window["held"])

    async def wait_empty(self) -> None:
        """Wait until all usage is booked and nothing is held."""
        deadline = time.monotonic() + PATIENCE_S
        while any(found := self.wallet()):
            assert time.monotonic() < deadline, found
            await asyncio.sleep(0.2)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """One node of two workers, and an alias whose output has a price."""
    with running_site(tmp_path, nodes=1) as site:
        create_price(site, input_price="0", output_price=str(PRICE))
        yield site


@pytest.mark.slow
async def test_what_was_paid_for_is_served_and_nothing_else(site: Site) -> None:
    """Of requests at once exactly those are served that the wallet pays; a top-up pays more."""
    organization = site.create_organization("acme")
    project = site.create_project(organization, "web")
    terms = {"currency": "EUR", "mode": "prepaid"}
    site.admin.put(f"/billing-terms/{organization}", json=terms).raise_for_status()
    customer = Customer(site, organization, str(site.create_key(project)["secret"]))
    await site.until_told()
    answer = await customer.ask_until_served(0)
    assert answer.code == EXHAUSTED
    assert answer.body["error"]["code"] == "insufficient_quota"
    assert answer.headers["x-should-retry"] == "false"
    customer.top_up(WORTH)
    answer = await customer.ask_until_served(WORTH)
    assert (answer.code, answer.headers["x-should-retry"]) == (EXHAUSTED, "false")
    await customer.wait_empty()
    customer.top_up(1)
    await customer.ask_until_served(WORTH + 1)
    await customer.wait_empty()
    await _expect_right_books(site)


async def _expect_right_books(site: Site) -> None:
    token = (site.control.data / "secrets" / "admin_token").read_text().strip()
    control = ControlServer(site.control.url("control"), token)
    reconcile = ("reconcile", "--wait", "60", "--json", "--node", str(site.control.data))
    report = await asyncio.to_thread(run, control, *reconcile)
    assert report.exit_code == 0, report.output
    rows = msgspec.json.decode(report.stdout)["data"]
    assert sum(row["stored"] for row in rows) == WORTH + 1
    verified = await asyncio.to_thread(run, control, "ledger", "verify", "--json")
    assert verified.exit_code == 0, verified.output
