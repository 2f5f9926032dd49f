"""Books under whatever happens to them, beside a model that knows fractions and nothing of SQL."""

import asyncio
import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from itertools import count
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule
from sqlalchemy import select
from tests.fakes.database_machine import DatabaseMachine
from tests.fakes.ledger_rig import (
    add_grant,
    atto,
    balance_of,
    find_violations,
    post,
    post_rated,
    posting,
    run_sql,
    set_mode,
)
from tests.fakes.organizations import ALL, NOW_US

from penstock.ledger.balances import make_snapshots
from penstock.ledger.credits import EXPIRY_GRACE_US, expire_grants
from penstock.ledger.drafts import draft_top_up
from penstock.ledger.model import GrantKind, TopUp
from penstock.ledger.rules import transfer_id_of
from penstock.ledger.service import post_usage
from penstock.ledger.store import insert_transfers
from penstock.ledger.tables import Entries, LedgerAccounts, Transfers
from penstock.limits.prices import ATTO
from penstock.metering.bucket_rules import DAY_US

Value = TypeVar("Value")

AMOUNTS = st.fractions(0, 9, max_denominator=7).map(lambda one: Fraction(int(one * ATTO), ATTO))
PARTS = st.integers(1, 100)
HOUR_US = 3_600_000_000
_ORGANIZATIONS = count()


class CrashError(Exception):
    """Ends a transaction as a killed process does."""


@dataclass
class ModelGrant:
    """A grant, as the model has it."""

    id: str
    kind: GrantKind
    priority: int
    created_at_us: int
    expires_at_us: int | None
    amount: Fraction
    left: Fraction
    broken: Fraction = Fraction(0)

    @property
    def order(self) -> tuple[Any, ...]:
        """What decides which one pays first."""
        never = self.expires_at_us is None
        return (self.priority, never, self.expires_at_us or 0, self.created_at_us, self.id)


class LedgerMachine(DatabaseMachine):
    """One prepaid organization. What is booked when, the model keeps as a list of facts."""

    def __init__(self) -> None:
        """See the class."""
        super().__init__()
        self.now_us = NOW_US - NOW_US % DAY_US
        self.number = 0
        self.owner = f"machine-{next(_ORGANIZATIONS)}"
        self.grants: list[ModelGrant] = []
        self.taken: list[tuple[ModelGrant | None, Fraction]] = []
        """What paid for usage, the last at the end; None is the wallet."""
        self.facts: list[tuple[int, Fraction, Fraction]] = []
        """When something was booked, and how much more the wallet and presents had then."""

    @initialize()
    def begin(self) -> None:
        """An organization that pays before it uses something."""
        self.run(set_mode(self.database, "prepaid", organization=self.owner))
        self._grant(Fraction(7), "promo", 2, 30)
        self._grant(Fraction(5), "paid", 1, None)
        self._grant(Fraction(6), "promo", 1, 50)

    @rule(
        amount=AMOUNTS, is_crash=st.booleans(), is_repeated=st.booleans(), late=st.integers(0, 30)
    )
    def use(self, amount: Fraction, *, is_crash: bool, is_repeated: bool, late: int) -> None:
        """Usage of now or of before: perhaps a crash comes first, perhaps it comes twice."""
        at_us = max(self.now_us - late * HOUR_US, NOW_US - NOW_US % DAY_US)
        one = posting(amount, cost=amount / 4 if amount * ATTO % 4 == 0 else 0,
                      organization=self.owner, at_us=at_us)  # fmt: skip
        key = self._key()
        if is_crash:
            self._crash(key, one)
        booked = self.run(post_rated(self.database, one, key=key, recorded_at_us=self._tick()))
        if is_repeated:
            again = self.run(post(self.database, one, key=key, recorded_at_us=self._tick()))
            assert again == booked
        self._spend(amount, at_us)

    @rule(amounts=st.lists(AMOUNTS.filter(bool), min_size=2, max_size=4))
    def use_at_once(self, amounts: list[Fraction]) -> None:
        """Batches at the same time: in whatever order they come, all is paid, nothing twice."""
        keys = [self._key() for _ in amounts]
        now_us = self._tick()
        total = sum(amounts, Fraction(0))

        async def all_of_them() -> None:
            await asyncio.gather(
                *(
                    post_rated(
                        self.database,
                        posting(amount, organization=self.owner, at_us=self.now_us),
                        key=key,
                        recorded_at_us=now_us + place,
                    )
                    for place, (key, amount) in enumerate(zip(keys, amounts, strict=True))
                )
            )

        self.run(all_of_them())
        before = len(self.taken)
        self._spend(total, self.now_us)
        # Which batch took what is seen afterwards; what they took together is known.
        expected, found = self.taken[before:], self.run(self._read_taken(now_us))
        assert _by_lot(found) == _by_lot(expected)
        self.taken[before:] = found

    @rule(part=PARTS, back=st.booleans())
    def take_back(self, part: int, *, back: bool) -> None:
        """A correction gives back a part of what was charged, or more than that."""
        charged = sum((amount for _, amount in self.taken), Fraction(0))
        amount = Fraction(int(charged * part / 100 * ATTO), ATTO) if back else Fraction(part)
        if not amount:
            return
        one = posting(-amount, organization=self.owner, at_us=self.now_us)
        self.run(post_rated(self.database, one, key=self._key(), recorded_at_us=self._tick()))
        self._give_back(amount)

    @rule(
        amount=AMOUNTS.filter(bool),
        kind=st.sampled_from(["promo", "paid"]),
        priority=st.integers(0, 2),
        hours=st.none() | st.integers(1, 60),
    )
    def grant(self, amount: Fraction, kind: GrantKind, priority: int, hours: int | None) -> None:
        """Credit is given, for ever or for a while."""
        self._grant(amount, kind, priority, hours)

    def _grant(self, amount: Fraction, kind: GrantKind, priority: int, hours: int | None) -> None:
        ends_us = None if hours is None else self.now_us + hours * HOUR_US
        made = ModelGrant(
            f"crd_{self._key()}", kind, priority, self.now_us, ends_us, amount, amount
        )
        self.run(
            add_grant(
                self.database, made.id, amount, organization=self.owner, kind=kind,
                priority=priority, expires_at_us=ends_us, created_at_us=self.now_us,
            )
        )  # fmt: skip
        self.grants.append(made)
        self._note(self.now_us, made, amount)

    @rule(amount=AMOUNTS.filter(bool))
    def fill(self, amount: Fraction) -> None:
        """The wallet is filled."""
        reference = self._key()
        name = transfer_id_of(self.owner, "topup", reference)
        top_up = TopUp(
            id=name, organization_id=self.owner, currency="EUR", amount_atto=atto(amount),
            reference=reference, created_at_us=self.now_us,
        )  # fmt: skip

        async def book() -> None:
            async with self.database.write(ALL) as session:
                await insert_transfers(session, ALL, [draft_top_up(top_up)], self._tick())

        self.run(book())
        self.facts.append((self.now_us, amount, Fraction(0)))

    @rule(hours=st.integers(1, 40))
    def pass_time(self, hours: int) -> None:
        """Time passes, and grants whose time is over end."""
        self.now_us += hours * HOUR_US

        async def end() -> None:
            async with self.database.write(ALL) as session:
                await expire_grants(session, self.now_us)

        self.run(end())
        for one in self.grants:
            ends_us = one.expires_at_us
            if ends_us is None or ends_us + EXPIRY_GRACE_US > self.now_us:
                continue
            self._note(ends_us, one, -one.left)
            one.broken += one.left
            one.left = Fraction(0)

    @rule(is_deleted=st.booleans())
    def keep_sums(self, *, is_deleted: bool) -> None:
        """Snapshots are made, or some of them deleted."""
        self.run(make_snapshots(self.database, self.now_us + DAY_US, least=1))
        if is_deleted:
            smallest = "SELECT min(at) FROM balance_snapshots"
            self.run(
                run_sql(self.database, f"DELETE FROM balance_snapshots WHERE at = ({smallest})")  # noqa: S608 - a test's own
            )

    @invariant()
    def balances_agree(self) -> None:
        """Balances, of now and of before, are those of the model."""
        for at_us in (self.now_us, self.now_us - DAY_US, self.now_us - DAY_US // 2 + 1):
            wallet, presents = self._balance(at_us)
            found = self.run(balance_of(self.database, at_us + 1, self.owner))
            prepaid, promo = (found.prepaid_atto, found.promo_atto) if found else (0, 0)
            assert (Fraction(prepaid, ATTO), Fraction(promo, ATTO)) == (wallet, presents)

    @invariant()
    def grants_agree(self) -> None:
        """Grants have left what the model's have, from nothing to all; breakage is the rest."""
        rows = self.run(
            run_sql(
                self.database,
                "SELECT id, remaining, remaining_rest FROM credit_grants "  # noqa: S608 - a test's own
                f"WHERE organization_id = '{self.owner}'",
            )
        )
        left = {row[0]: Fraction(int(row[1]) * 10**9 + int(row[2]), ATTO) for row in rows}
        assert left == {one.id: one.left for one in self.grants}
        assert all(0 <= one.left <= one.amount for one in self.grants)

    @invariant()
    def wallet_is_negative_for_a_reason(self) -> None:
        """Below zero is at most what the wallet itself paid for usage, and nothing is cut off."""
        wallet, _ = self._balance(self.now_us)
        paid = sum((amount for lot, amount in self.taken if lot is None), Fraction(0))
        assert wallet >= min(-paid, Fraction(0))

    def teardown(self) -> None:
        """All checks of the books find nothing."""
        assert self.run(find_violations(self.database)) == set()
        super().teardown()

    def _key(self) -> str:
        self.number += 1
        return f"{self.owner}-{self.number}"

    def _tick(self) -> int:
        self.number += 1
        return self.now_us + self.number * 100

    async def _read_taken(self, since_us: int) -> list[tuple[ModelGrant | None, Fraction]]:
        """Return what transfers took that were recorded since a moment, in their order."""
        grants = {one.id: one for one in self.grants}
        statement = (
            select(Entries.grant_id, Entries.amount, Entries.amount_rest)
            .join(Transfers, Transfers.id == Entries.transfer_id)
            .join(LedgerAccounts, LedgerAccounts.id == Entries.account_id)
            .where(
                Transfers.organization_id == self.owner,
                Transfers.kind == "charge",
                Transfers.recorded_at >= since_us,
                LedgerAccounts.kind != "revenue",
            )
            .order_by(Transfers.recorded_at, Transfers.id, Entries.line)
        )
        async with self.database.read(ALL) as session:
            rows = await session.rows(statement)
        return [
            (grants[name] if name else None, Fraction(nano * 10**9 + rest, ATTO))
            for name, nano, rest in rows
        ]

    def _crash(self, key: str, one: Any) -> None:
        async def begin() -> None:
            async with self.database.write(ALL) as session:
                await post_usage(session, [one], key=key, recorded_at_us=self.now_us)
                raise CrashError

        with contextlib.suppress(CrashError):
            self.run(begin())

    def _spend(self, amount: Fraction, at_us: int) -> None:
        for one in sorted(self.grants, key=lambda grant: grant.order):
            is_over = one.expires_at_us is not None and at_us >= one.expires_at_us
            part = min(amount, one.left)
            if not part or is_over or at_us < one.created_at_us:
                continue
            one.left -= part
            amount -= part
            self.taken.append((one, part))
            self._note(at_us, one, -part)
        if amount:
            self.taken.append((None, amount))
            self._note(at_us, None, -amount)

    def _give_back(self, amount: Fraction) -> None:
        while amount and self.taken:
            lot, paid = self.taken.pop()
            part = min(amount, paid)
            if part < paid:
                self.taken.append((lot, paid - part))
            if lot is not None:
                lot.left += part
            self._note(self.now_us, lot, part)
            amount -= part
        if amount:
            self._note(self.now_us, None, amount)

    def _note(self, at_us: int, lot: ModelGrant | None, amount: Fraction) -> None:
        is_present = lot is not None and lot.kind == "promo"
        zero = Fraction(0)
        self.facts.append((at_us, zero, amount) if is_present else (at_us, amount, zero))

    def _balance(self, at_us: int) -> tuple[Fraction, Fraction]:
        booked = [(wallet, presents) for when, wallet, presents in self.facts if when <= at_us]
        return (
            sum((wallet for wallet, _ in booked), Fraction(0)),
            sum((presents for _, presents in booked), Fraction(0)),
        )


def _by_lot(taken: Iterable[tuple[ModelGrant | None, Fraction]]) -> dict[str, Fraction]:
    sums: dict[str, Fraction] = {}
    for lot, amount in taken:
        name = "" if lot is None else lot.id
        sums[name] = sums.get(name, Fraction(0)) + amount
    return sums
