"""A worker's shares of hard budgets: amounts that the control plane's database holds for it.

A request takes its worst case and, when it has ended, puts back what it did not cost. What is
left goes back to the budget in time, and earlier when nobody used it for a while. Amounts are
nano-units (`contract.money`).
"""

from collections.abc import Sequence

from penstock.contract.money import Budget, Hold, HoldAsk, HoldUse, Price
from penstock.gateway.dialects.openai_usage import Usage
from penstock.gateway.limits import (
    ACCOUNTS,
    HOLD_IDLE_MS,
    HOLD_LASTS_MS,
    HOLD_TRUSTED_MS,
    SCARCE_HOLD_IDLE_MS,
)
from penstock.limits.prices import ATTO_IN_NANO, exact_charge, worst_input_charge

_NEVER = -(10**9)
_REPEAT_MS = 60_000


class OpenHold:
    """A hold that is, or was, an account's to use."""

    __slots__ = ("account", "ends_ms", "freed", "id", "is_open", "left", "until_ms", "used_at_ms")

    def __init__(self, account: "Account", hold: Hold, asked_at_ms: int) -> None:
        """See the class."""
        self.account = account
        self.id = hold.id
        self.is_open = True
        """It may be used."""
        self.left = hold.amount
        self.ends_ms = asked_at_ms + hold.use_ms
        """When it may not be used any more, whoever is there."""
        self.until_ms = self.ends_ms
        """When it may not be used any more without another word."""
        if account.is_strict:
            self.trust_from(asked_at_ms)
        self.freed = 0
        self.used_at_ms = asked_at_ms

    def trust_from(self, at_ms: int) -> None:
        """Take note that the database was there at a time, of a budget that insists on it."""
        self.until_ms = min(self.ends_ms, at_ms + HOLD_TRUSTED_MS)


class Account:
    """What a worker may spend of one budget without asking anybody.

    Args:
        budget: Which one.
        organization: Whose it is.
        subject: The key or member, when each has one of its own.
    """

    __slots__ = (
        "budget",
        "filled_at_ms",
        "heard_at_ms",
        "holds",
        "is_asked",
        "is_away",
        "is_scarce",
        "last_amount",
        "left",
        "organization",
        "refill_at",
        "remaining",
        "reset_s",
        "subject",
        "told_at_ms",
        "until_ms",
    )

    def __init__(self, budget: Budget, organization: str, subject: str) -> None:
        """See the class."""
        self.budget = budget
        self.organization = organization
        self.subject = subject
        self.holds: list[OpenHold] = []
        """Those that may be used."""
        self.left = 0
        self.until_ms = 0
        """When the first of them may not be used any more."""
        self.is_scarce = True
        """The budget had less left than it gave: what is not used goes back soon."""
        self.refill_at = 0
        self.last_amount = 0
        self.filled_at_ms = _NEVER
        self.is_asked = False
        self.told_at_ms = _NEVER
        """When it was last heard that the budget has too little, or that nobody can be asked."""
        self.is_away = False
        """It was the latter."""
        self.remaining = 0
        """What the budget had besides when it was last heard of, at `heard_at_ms`."""
        self.heard_at_ms = _NEVER
        self.reset_s: int | None = None

    @property
    def is_strict(self) -> bool:
        """Whether nothing may be spent of it while its budget cannot be reached."""
        return self.budget.when_away == "refuse"

    def ask(self, least: int, needed: int, now_ms: int) -> HoldAsk:
        """Return what to ask for.

        Args:
            least: What one request is waiting for.
            needed: What all of them are.
            now_ms: The time.
        """
        is_short_lived = now_ms - self.filled_at_ms < HOLD_LASTS_MS
        usual = self.last_amount * 2 if is_short_lived else self.last_amount // 2
        least = max(0, least - self.left)
        return HoldAsk(self.budget.id, self.subject, least, max(least, needed, usual))


Spent = list[tuple[OpenHold, int, Price]]
"""What one request holds: parts of holds, those of one account together, and its price."""


class Purse:
    """All accounts of a worker."""

    def __init__(self) -> None:
        """Begin with none."""
        self._known: dict[tuple[str, str], Account] = {}
        self._active: set[Account] = set()
        """Those that have holds."""
        self._freed: dict[str, int] = {}
        """By hold; not yet told."""
        self._told: dict[str, tuple[int, int]] = {}
        """By hold: what was told lately, and when."""
        self.low: set[Account] = set()
        """Accounts to ask more for before they run dry."""

    def get(self, budget: Budget, organization: str, subject: str) -> Account:
        """Return the account of a budget, an empty one at first."""
        name = (budget.id, subject)
        account = self._known.get(name)
        if account is None:
            if len(self._known) >= ACCOUNTS:
                self._known = {(each.budget.id, each.subject): each for each in self._active}
            account = self._known[name] = Account(budget, organization, subject)
        account.budget = budget
        return account

    def has_all(self, accounts: Sequence[Account], amounts: Sequence[int], now_ms: int) -> bool:
        """Return whether each account has so much that may still be used."""
        for account, amount in zip(accounts, amounts, strict=False):
            is_sure = account.left >= amount and now_ms < account.until_ms
            if not is_sure and not self.has(account, amount, now_ms):
                return False
        return True

    def has(self, account: Account, amount: int, now_ms: int) -> bool:
        """Return whether an account has so much that may still be used."""
        if now_ms >= account.until_ms and account.holds:
            for hold in [each for each in account.holds if now_ms >= each.until_ms]:
                self._close(hold)
        return account.left >= amount

    def take(
        self,
        accounts: Sequence[Account],
        amounts: Sequence[int],
        prices: Sequence[Price],
        now_ms: int,
    ) -> Spent:
        """Take amounts of accounts; `has_all` said that they are there.

        Args:
            accounts: Of which.
            amounts: How much of each.
            prices: What the request is charged by, for each.
            now_ms: The time.
        """
        spent: Spent = []
        for account, needed, price in zip(accounts, amounts, prices, strict=True):
            amount = needed
            account.left -= amount
            if account.left < account.refill_at and not account.is_asked:
                self.low.add(account)
            for hold in account.holds:
                if amount == 0:
                    break
                part = min(hold.left, amount)
                amount -= part
                hold.left -= part
                hold.used_at_ms = now_ms
                spent.append((hold, part, price))
        return spent

    def settle(self, spent: Spent, usage: Usage) -> tuple[HoldUse, ...]:
        """Put back what a request did not cost, and return what it did, hold by hold.

        Args:
            spent: What `take` returned; not used again.
            usage: What the request used.
        """
        uses = []
        account, cost = None, 0
        for hold, part, price in spent:
            if hold.account is not account:
                account, cost = hold.account, cost_of(price, usage)
            used = min(part, cost)
            cost -= used
            uses.append(HoldUse(hold.id, used))
            self.put_back(hold, part - used)
        return tuple(uses)

    @staticmethod
    def find_hold(account: Account, now_ms: int) -> OpenHold | None:
        """Return the hold with most left, unless the budget is scarce."""
        if account.is_scarce or now_ms >= account.until_ms:
            return None
        return max(account.holds, key=lambda hold: hold.left)

    def take_of(self, hold: OpenHold, amount: int, now_ms: int) -> None:
        """Take an amount of a hold that has it."""
        account = hold.account
        account.left -= amount
        if account.left < account.refill_at and not account.is_asked:
            self.low.add(account)
        hold.left -= amount
        hold.used_at_ms = now_ms

    def put_back(self, hold: OpenHold, amount: int) -> None:
        """Put back what was taken of a hold and not spent."""
        if hold.is_open:
            hold.left += amount
            hold.account.left += amount
        else:
            self._free(hold, amount)

    def granted(self, account: Account, hold: Hold, *, asked_at_ms: int, now_ms: int) -> None:
        """Take in a hold."""
        if hold.amount == 0:
            return
        opened = OpenHold(account, hold, asked_at_ms)
        account.holds.append(opened)
        account.left += hold.amount
        account.until_ms = min(each.until_ms for each in account.holds)
        account.remaining, account.heard_at_ms = hold.remaining, now_ms
        account.is_scarce = hold.remaining < hold.amount
        account.refill_at = 0 if account.is_scarce else hold.amount // 4
        account.last_amount = hold.amount
        account.filled_at_ms = now_ms
        self._active.add(account)

    def list_strict(self) -> list[Account]:
        """Return accounts with holds that are nothing while their budgets cannot be reached."""
        return [account for account in self._active if account.is_strict and account.holds]

    def trust_from(self, at_ms: int) -> None:
        """Take note that the database was there at a time."""
        for account in self.list_strict():
            for hold in account.holds:
                hold.trust_from(at_ms)
            account.until_ms = min(each.until_ms for each in account.holds)

    def distrust(self, now_ms: int) -> None:
        """Give back what is nothing now that the database is away."""
        for account in self.list_strict():
            for hold in list(account.holds):
                self._close(hold)
            account.is_away, account.told_at_ms = True, now_ms

    def sweep(self, now_ms: int) -> None:
        """Give back holds that nobody used lately, or that may not be used any more."""
        for account in list(self._active):
            idle_ms = SCARCE_HOLD_IDLE_MS if account.is_scarce else HOLD_IDLE_MS
            for hold in list(account.holds):
                if now_ms >= min(hold.until_ms, hold.used_at_ms + idle_ms):
                    self._close(hold)
            if not account.holds:
                self._active.discard(account)
        if self._told:
            first_ms = now_ms - _REPEAT_MS
            self._told = {name: told for name, told in self._told.items() if told[1] >= first_ms}

    def collect_freed(self, now_ms: int) -> tuple[tuple[str, int], ...]:
        """Return what has to be told of freed amounts, once."""
        freed, self._freed = self._freed, {}
        self._told |= {name: (amount, now_ms) for name, amount in freed.items()}
        return tuple(freed.items())

    def repeat_freed(self) -> None:
        """Tell again what was freed lately: it may have been lost."""
        self._freed = {name: amount for name, (amount, _) in self._told.items()} | self._freed

    def _close(self, hold: OpenHold) -> None:
        account = hold.account
        hold.is_open = False
        account.holds.remove(hold)
        account.left -= hold.left
        account.until_ms = min((each.until_ms for each in account.holds), default=0)
        self._free(hold, hold.left)
        hold.left = 0

    def _free(self, hold: OpenHold, amount: int) -> None:
        if amount and hold.id:  # one without a name is held nowhere
            hold.freed += amount
            hold.account.told_at_ms = _NEVER
            self._freed[hold.id] = hold.freed


def cost_of(price: Price, usage: Usage) -> int:
    """Return what a request cost at most, rounded up to a nano-unit."""
    cached = usage.cached_input_tokens or 0
    exact = exact_charge(price, usage.input_tokens, cached, usage.output_tokens)
    return -(-exact // ATTO_IN_NANO)


def output_for(price: Price, amount: int, input_tokens: int, answers: int) -> int:
    """Return how many output tokens for each answer an amount buys, in the worst case; maybe < 0.

    Args:
        price: What they cost, more than nothing.
        amount: What there is.
        input_tokens: What is to be paid besides.
        answers: How many there are, >= 1.
    """
    left = amount * ATTO_IN_NANO - worst_input_charge(price, input_tokens)
    return left // (price.output * answers)
