"""Workers that hold, spend, free, die and deliver in any order, beside a model of their money."""

from dataclasses import dataclass, field
from fractions import Fraction
from itertools import count
from typing import TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule
from tests.fakes.budget_rig import BudgetRig
from tests.fakes.database_machine import DatabaseMachine
from tests.fakes.organizations import NOW_US, SECOND_US, create_place

from penstock.contract.money import HoldAsk, HoldUse
from penstock.contract.usage import UsageEvent
from penstock.limits.budget_model import Budget, Life
from penstock.limits.budget_rules import EXPIRY_S
from penstock.limits.prices import ATTO, ATTO_IN_NANO, to_nano

Value = TypeVar("Value")

PRICE_IN = Fraction(1_000_000_000_003, 10**18)
PRICE_OUT = Fraction(5, 2) / 10**6
KEYS = ("key-1", "key-2")
AMOUNTS = {"organization": 300_000, "project": 240_000, "key": 90_000}
SLOTS = 3
# Examples share a database, and a machine may lie where one before it lay: no id() in names.
_NUMBERS = count()


@dataclass
class Block:
    """What a worker has of one budget, as it reckons."""

    budget: str
    hold: str
    left: int
    freed: int = 0


@dataclass
class Worker:
    """One life of a worker: what it holds, and what of its journal was not yet delivered."""

    life: Life
    blocks: dict[str, list[Block]] = field(default_factory=dict)
    """By key: blocks that were held together, one of each budget."""
    journal: list[UsageEvent] = field(default_factory=list)


class BudgetMachine(DatabaseMachine):
    """Three budgets over two keys: an organization's, its project's, and one for each key."""

    def __init__(self) -> None:
        """See the class."""
        super().__init__()
        self.now_us = NOW_US
        self.workers: list[Worker] = []
        self.epoch = 0
        self.number = 0
        self.settled: dict[str, Fraction] = {}
        """What is spent, by budget and subject."""
        self.delivered: list[tuple[Life, UsageEvent]] = []
        self.late = Fraction(0)
        """What was spent on holds that had expired, or on none."""
        self.expired: set[Life] = set()

    @initialize()
    def begin(self) -> None:
        """An organization with budgets, and workers that hold nothing."""
        self.run(self._begin())
        for slot in range(SLOTS):
            self.workers.append(self._start(slot))

    @rule(
        slot=st.integers(0, SLOTS - 1),
        key=st.sampled_from(KEYS),
        least=st.integers(1, 40_000),
        more=st.integers(0, 200_000),
        is_repeated=st.booleans(),
    )
    def take(self, slot: int, key: str, least: int, more: int, *, is_repeated: bool) -> None:
        """A worker asks for something of all three: it gets all of it, or nothing of any."""
        worker = self.workers[slot]
        asks = [HoldAsk(one.id, sub, least, least + more) for one, sub in self._budgets_of(key)]
        name = f"{self.organization}-{self.number}"
        self.number += 1
        free = [self._free(one, sub) for one, sub in self._budgets_of(key)]
        answer = self.run(self.rig.take(asks, worker.life, now_us=self.now_us, take_id=name))
        if answer.holds is None:
            assert answer.shortage is not None
            assert free[answer.shortage.index] < least
            assert answer.shortage.remaining == max(0, free[answer.shortage.index])
            return
        self.expired.discard(worker.life)
        assert min(free) >= least
        for hold, left in zip(answer.holds, free, strict=True):
            assert least <= hold.amount <= least + more
            assert hold.remaining == left - hold.amount
        if is_repeated:
            again = self.run(self.rig.take(asks, worker.life, now_us=self.now_us, take_id=name))
            assert again == answer
        self.run(self._return(worker, key))
        worker.blocks[key] = [
            Block(one.id, hold.id, hold.amount)
            for hold, (one, _) in zip(answer.holds, self._budgets_of(key), strict=True)
        ]

    @rule(
        slot=st.integers(0, SLOTS - 1),
        key=st.sampled_from(KEYS),
        tokens=st.tuples(st.integers(0, 9_000), st.integers(0, 3_000)),
        used=st.tuples(st.integers(0, 100), st.integers(0, 100)),
    )
    def spend(self, slot: int, key: str, tokens: tuple[int, int], used: tuple[int, int]) -> None:
        """A request is let in when its worst case is held, and really uses a part of that."""
        worker = self.workers[slot]
        blocks = worker.blocks.get(key, [])
        worst = _nano(tokens[0] * PRICE_IN + tokens[1] * PRICE_OUT)
        if not blocks or min(block.left for block in blocks) < worst:
            return
        for block in blocks:
            block.left -= worst
        self.number += 1
        event = self.rig.event(
            self.number,
            *(HoldUse(block.hold, worst) for block in blocks),
            key_id=key,
            input_tokens=tokens[0] * used[0] // 100,
            output_tokens=tokens[1] * used[1] // 100,
            started_at_ns=self.now_us * 1_000,
        )
        worker.journal.append(event)

    @rule(slot=st.integers(0, SLOTS - 1), count=st.integers(1, 5), is_repeated=st.booleans())
    def deliver(self, slot: int, count: int, *, is_repeated: bool) -> None:
        """The beginning of a journal is stored, perhaps twice."""
        worker = self.workers[slot]
        events, worker.journal = worker.journal[:count], worker.journal[count:]
        self._deliver(worker.life, events)
        if is_repeated and self.delivered:
            life, event = self.delivered[-1]
            self.run(self.rig.deliver(event, life=life, now_us=self.now_us))

    @rule(key=st.sampled_from(KEYS), tokens=st.integers(0, 500))
    def spend_without_hold(self, key: str, tokens: int) -> None:
        """Usage that nothing was held for counts all the same."""
        self.number += 1
        event = self.rig.event(
            self.number,
            key_id=key,
            input_tokens=tokens,
            output_tokens=0,
            started_at_ns=self.now_us * 1_000,
        )
        self._deliver(Life("node-9/0", 1), [event])

    @rule(slot=st.integers(0, SLOTS - 1), key=st.sampled_from(KEYS))
    def give_back(self, slot: int, key: str) -> None:
        """A worker gives back what it has left of its blocks."""
        self.run(self._return(self.workers[slot], key))

    @rule(slot=st.integers(0, SLOTS - 1))
    def die(self, slot: int) -> None:
        """A worker is killed; its journal is delivered, and then all it held is free."""
        worker = self.workers[slot]
        self._deliver(worker.life, worker.journal)
        self.run(self.rig.free(life=worker.life, is_over=True, now_us=self.now_us))
        self.workers[slot] = self._start(slot)

    @precondition(lambda self: self.number > 3)
    @rule(slot=st.integers(0, SLOTS - 1))
    def cut_off(self, slot: int) -> None:
        """A node is away for a day: others get what it held, and its usage comes late."""
        self.now_us += (EXPIRY_S + 1) * SECOND_US
        for other, worker in enumerate(self.workers):
            if other != slot:
                self.run(self.rig.free(life=worker.life, now_us=self.now_us))
        self.run(self.rig.expire(self.now_us))
        self.expired.add(self.workers[slot].life)
        self.workers[slot].blocks.clear()

    @invariant()
    def books_agree(self) -> None:
        """Windows say what the model, charges and holds say; nothing hard is overrun but by late.

        Parents have spent what their children have.
        """
        if not self.workers:
            return
        used: dict[str, Fraction] = {}
        for name, budget in self.budgets.items():
            total = Fraction(0)
            for window in self.run(self.rig.windows(budget)):
                settled = Fraction(window.settled_atto, ATTO)
                name_of = f"{budget.id} {window.key.subject}"
                assert settled == self.settled.get(name_of, Fraction(0))
                held = Fraction(window.held, 10**9)
                assert 10**9 * (settled + held - self.late) <= AMOUNTS[name]
                total += settled
            used[name] = total
        assert used["organization"] == used["project"] == used["key"]
        assert self.run(self.rig.differences()) == []

    async def _begin(self) -> None:
        organization, project = await create_place(self.database, f"acme-{next(_NUMBERS)}")
        self.organization = organization.id
        self.rig = BudgetRig(self.database, organization, project)
        owners = {
            "organization": self.rig.owner(),
            "project": self.rig.owner(owner_kind="project", project_id=project.id),
        }
        self.budgets = {
            name: await self.rig.add_budget(owner, amount=AMOUNTS[name], period="once")
            for name, owner in owners.items()
        }
        self.budgets["key"] = await self.rig.add_budget(
            owners["project"], amount=AMOUNTS["key"], period="once", per="key"
        )

    def _start(self, slot: int) -> Worker:
        self.epoch += 1
        return Worker(Life(f"{self.organization}/{slot}", self.epoch))

    def _budgets_of(self, key: str) -> list[tuple[Budget, str]]:
        return [(budget, f"k.{key}" if budget.per else "") for budget in self.budgets.values()]

    def _free(self, budget: Budget, subject: str) -> int:
        windows = self.run(self.rig.windows(budget))
        taken = [
            to_nano(window.settled_atto) + window.held
            for window in windows
            if window.key.subject == subject
        ]
        return budget.amount - sum(taken)

    def _deliver(self, life: Life, events: list[UsageEvent]) -> None:
        if not events:
            return
        receipt = self.run(self.rig.deliver(*events, life=life, now_us=self.now_us))
        assert receipt.stored == len(events)
        for event in events:
            self.delivered.append((life, event))
            charge = event.input_tokens * PRICE_IN + event.output_tokens * PRICE_OUT
            for budget, subject in self._budgets_of(event.key_id):
                name = f"{budget.id} {subject}"
                self.settled[name] = self.settled.get(name, Fraction(0)) + charge
            if life in self.expired or not event.holds:
                self.late += charge

    async def _return(self, worker: Worker, key: str) -> None:
        freed = []
        for block in worker.blocks.pop(key, []):
            block.freed += block.left
            freed.append((block.hold, block.freed))
        if freed:
            await self.rig.free(*freed, life=worker.life, now_us=self.now_us)


def _nano(amount: Fraction) -> int:
    return to_nano(int(amount * 10**9 * ATTO_IN_NANO))
