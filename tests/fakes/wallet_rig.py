"""A prepaid organization to test with: its wallet, filled, held, spent and corrected."""

from fractions import Fraction

from tests.fakes.budget_rig import WORKER, BudgetRig
from tests.fakes.ledger_rig import atto, find_violations, read_amounts, run_sql
from tests.fakes.organizations import ALL, NOW_US, actor, create_place

from penstock.contract.money import NANO, HoldAnswer, HoldAsk, HoldUse
from penstock.contract.usage import UsageEvent
from penstock.control.ratings import post_differences
from penstock.ledger import credits as credit
from penstock.ledger.credit_store import list_ending
from penstock.ledger.model import Grant, GrantKind, Mode, NewGrant
from penstock.limits.budget_model import Budget, Life
from penstock.limits.prices import ATTO
from penstock.limits.wallet_store import list_wallets
from penstock.rating import run_store
from penstock.rating.corrections import correct_usage
from penstock.rating.model import NewCorrection
from penstock.rating.rerating import read_known
from penstock.storage.database import Database


class WalletRig(BudgetRig):
    """What happens to the wallet of one organization, which is charged in euros."""

    async def set_terms(self, mode: Mode, currency: str = "EUR") -> None:
        """Say how it pays."""
        async with self.database.write(ALL) as session:
            await credit.set_terms(
                session, actor(), self.organization.id, currency=currency, mode=mode
            )

    async def top_up(self, amount: object, at_us: int = NOW_US) -> None:
        """Fill its wallet."""
        async with self.database.write(ALL) as session:
            await credit.top_up(
                session,
                actor(at_us=at_us),
                organization_id=self.organization.id,
                amount_atto=atto(amount),
                currency="EUR",
                reference=None,
                default="EUR",
            )

    async def grant(
        self,
        amount: object,
        at_us: int = NOW_US,
        *,
        kind: GrantKind = "promo",
        expires_at_us: int | None = None,
    ) -> Grant:
        """Give it credit."""
        new = NewGrant(
            organization_id=self.organization.id,
            currency="EUR",
            kind=kind,
            amount_atto=atto(amount),
            priority=0,
            expires_at_us=expires_at_us,
            name="",
        )
        async with self.database.write(ALL) as session:
            return await credit.create_grant(session, actor(at_us=at_us), new, default="EUR")

    async def expire_grants(self, now_us: int) -> None:
        """End grants whose time is over."""
        async with self.database.write(ALL) as session:
            await credit.expire_grants(session, now_us)

    async def correct(self, event_id: str, tokens: int, at_us: int) -> None:
        """Say that more or fewer input tokens were used."""
        async with self.database.write(ALL) as session:
            event = await run_store.find_event(session, ALL, event_id)
            assert event is not None
            (known,) = await read_known(session, [event])
            used = {"input": known.used.get("input", 0) + tokens}
            reference = f"{event_id}:{at_us}:{tokens}"
            new = NewCorrection(event_id, used, reference, "")
            await correct_usage(session, actor(at_us=at_us), new, post_differences)

    async def find_wallet(self) -> Budget | None:
        """Return its wallet; None while it is postpaid."""
        async with self.database.read(ALL) as session:
            found = await list_wallets(session, ALL, [self.organization.id])
        assert len(found) <= 1
        return found[0] if found else None

    async def wallet(self) -> Budget:
        """Return its wallet, which is there."""
        found = await self.find_wallet()
        assert found is not None
        return found

    async def ask(
        self,
        wallet: Budget,
        least: int,
        want: int | None = None,
        life: Life = WORKER,
        now_us: int = NOW_US,
    ) -> HoldAnswer:
        """Ask for a part of the wallet."""
        asks = [HoldAsk(wallet.id, "", least, want or least)]
        return await self.take(asks, life, now_us=now_us)

    def usage(
        self,
        number: int,
        tokens: int,
        *,
        hold: tuple[str, int] | None = None,
        at_us: int = NOW_US,
    ) -> UsageEvent:
        """Return usage of input tokens of `small`, a millionth of a euro each and a bit."""
        uses = () if hold is None else (HoldUse(*hold),)
        return self.event(
            number, *uses, input_tokens=tokens, output_tokens=0, started_at_ns=at_us * 1_000
        )

    async def amount_of(self, kind: str) -> Fraction:
        """Return what is on one of its accounts, added up without our code."""
        found = await read_amounts(self.database, self.organization.id)
        return found.get(kind, Fraction(0))

    async def amount_in_wallet(self) -> Fraction:
        """Return what its accounts say is in its wallet."""
        found = await read_amounts(self.database, self.organization.id)
        return -found.get("wallet_prepaid", Fraction(0)) - found.get("wallet_promo", Fraction(0))

    async def free_by_books(self, before_us: int) -> Fraction:
        """Return what is in its wallet, is held by nobody, and does not end before a moment."""
        held = await run_sql(
            self.database,
            "SELECT coalesce(sum(amount - used - freed), 0) FROM budget_holds "  # noqa: S608 - a test's own
            f"WHERE state = 'open' AND organization_id = '{self.organization.id}'",
        )
        async with self.database.read(ALL) as session:
            grants = await list_ending(session, ALL, self.organization.id)
        ending = sum(one.remaining_atto for one in grants if (one.expires_at_us or 0) <= before_us)
        inside = await self.amount_in_wallet()
        return inside - Fraction(int(held[0][0]), NANO) - Fraction(ending, ATTO)

    async def check(self) -> None:
        """Windows are what charges and holds say."""
        assert await self.differences() == []

    async def violations(self) -> set[str]:
        """Return the names of checks of the books that find something."""
        return await find_violations(self.database)


async def open_rig(database: Database, name: str = "acme") -> WalletRig:
    """Return an organization with a project, postpaid as all are at first."""
    return WalletRig(database, *await create_place(database, name))
