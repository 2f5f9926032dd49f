"""A key whose organization, project or self has a hard budget, and what became of it."""

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from tests.fakes.limited_site import ALIAS, Answer, Site
from tests.fakes.production import create

from penstock.gateway.limits import LEAST_OUTPUT_TOKENS

MILLION = 1_000_000
WORTH = 10
"""Requests that a budget is worth."""
OWNERS = ("organization", "project", "key", "label")
"""Whose a budget can be."""
LABELS = {"team": "search"}
"""What each key carries."""
_SETTLED_S = 60.0
_PATIENCE_S = 2.0


def create_price(site: Site, *, input_price: str, output_price: str) -> None:
    """Say what the alias costs: euros for a million tokens."""
    found = site.admin.get("/aliases", params={"name": ALIAS}).json()["data"]
    create(
        site.admin,
        "/prices",
        alias_id=found[0]["id"],
        currency="EUR",
        input=input_price,
        output=output_price,
    )


@dataclass
class Account:
    """A budget and who may spend it.

    Attributes:
        price: Of an output token, in euros; input costs nothing.
        tokens: Output tokens of each request.
        budget: As it was created.
        organization: Its id.
        secrets: Of the keys.
    """

    price: Decimal
    tokens: int
    budget: dict[str, Any]
    organization: str
    secrets: list[str]
    answers: list[Answer] = field(default_factory=list)

    @property
    def amount(self) -> Decimal:
        """All that may be spent."""
        return Decimal(self.budget["amount"])

    @property
    def known_cost(self) -> Decimal:
        """What callers know that they spent."""
        return self.price * sum(answer.tokens[1] for answer in self.answers)

    @property
    def affords_more(self) -> bool:
        """Whether what is left buys a request, or one with a lower cap."""
        least = self.tokens
        if self.budget["lowers_cap"]:
            least = min(least, LEAST_OUTPUT_TOKENS)
        return self.amount - self.known_cost >= least * self.price

    def state(self, site: Site) -> tuple[Decimal, Decimal]:
        """Return what is settled and what is held."""
        found = site.admin.get(f"/budgets/{self.budget['id']}").json()
        windows = found["windows"]
        settled = sum((Decimal(window["settled"]) for window in windows), Decimal(0))
        held = sum((Decimal(window["held"]) for window in windows), Decimal(0))
        assert all(Decimal(window["overrun"]) == 0 for window in windows), found
        return settled, held

    def usage_cost(self, site: Site) -> Decimal:
        """Return what the organization's usage events cost."""
        totals = site.admin.get(
            "/usage/totals", params={"organization": self.organization, "by": "organization"}
        ).json()["data"]
        tokens: int = sum(total["output_tokens"] for total in totals)
        return self.price * tokens

    def expect_within(self, site: Site) -> None:
        """Fail if more is spent and held than there is."""
        settled, held = self.state(site)
        assert settled + held <= self.amount
        assert self.known_cost <= self.amount

    def wait_settled(self, site: Site) -> Decimal:
        """Wait until nothing is held, and all usage that is stored is settled; return how much."""
        deadline = time.monotonic() + _SETTLED_S
        while True:
            settled, held = self.state(site)
            assert settled + held <= self.amount
            cost = self.usage_cost(site)
            if held == 0 and settled == cost >= self.known_cost:
                return settled
            assert time.monotonic() < deadline, (settled, held, cost, self.known_cost)
            time.sleep(0.2)


def open_account(
    site: Site,
    name: str,
    *,
    price: Decimal,
    tokens: int,
    owner: str = "organization",
    keys: int = 1,
    **members: Any,
) -> Account:
    """Make an organization with keys, and a budget worth `WORTH` requests.

    Args:
        site: Where.
        name: Of the organization.
        price: Of a million output tokens, euros.
        tokens: Output tokens of each request.
        owner: Whose the budget is, one of `OWNERS`; a label's is the organization's for it.
        keys: How many; of a key's budget only one.
        members: More of the budget.
    """
    organization = site.create_organization(name)
    project = site.create_project(organization, "web")
    made = [site.create_key(project, f"key {number}", labels=LABELS) for number in range(keys)]
    owners = {
        "organization": {"organization_id": organization},
        "project": {"project_id": project},
        "key": {"key_id": made[0]["id"]},
        "label": {"organization_id": organization, "label": "team=search"},
    }
    each = price / MILLION
    budget = create(
        site.admin,
        "/budgets",
        **owners[owner],
        currency="EUR",
        amount=f"{each * tokens * WORTH:f}",
        is_hard=True,
        **members,
    )
    return Account(each, tokens, budget, organization, [key["secret"] for key in made])


async def spend(
    site: Site,
    account: Account,
    draw: random.Random,
    count: int,
    *,
    leaving: float = 0.0,
    headers: Mapping[str, str] | None = None,
    meanwhile: Callable[[], None] | None = None,
) -> list[Answer]:
    """Send chats at once to both nodes, and return what was answered.

    Who is told that nobody could be asked in time asks again.

    Args:
        site: Where.
        account: Who pays.
        draw: Decides who goes where, and who leaves when.
        count: How many.
        leaving: Which part of the callers hang up in the middle.
        headers: More of them.
        meanwhile: Called once they are under way.
    """

    async def one() -> Answer:
        leave_s = draw.uniform(0.0, 0.2) if draw.random() < leaving else None
        give_up_s = time.monotonic() + _PATIENCE_S
        while True:
            answer = await site.chat(
                draw.choice(account.secrets),
                node=draw.randrange(len(site.nodes)),
                leave_after_s=leave_s,
                headers=headers,
                max_tokens=account.tokens,
            )
            if answer.status != 503 or time.monotonic() > give_up_s:
                return answer
            assert answer.headers["retry-after"] == "1"
            await asyncio.sleep(draw.uniform(1.0, 1.5))

    chats = [asyncio.ensure_future(one()) for _ in range(count)]
    if meanwhile is not None:
        await asyncio.sleep(0.03)
        await asyncio.to_thread(meanwhile)
    answers = await asyncio.gather(*chats)
    account.answers += answers
    return answers
