"""What one request takes of limits and budgets, and why it may not."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from penstock.contract.finished import RefusedBy
from penstock.contract.limits import Enforcement, Limit, Metric
from penstock.contract.money import HoldUse
from penstock.gateway.demand import Demand
from penstock.gateway.errors import (
    CONCURRENCY_EXCEEDED,
    LIMITS_UNAVAILABLE,
    PRICE_MISSING,
    QUOTA_EXHAUSTED,
    RATE_EXCEEDED,
    REQUEST_TOO_LARGE,
)
from penstock.gateway.limits import (
    CAPPED_OUTPUT_TOKENS,
    LEAST_OUTPUT_TOKENS,
    PLENTY,
    TOLD_MS,
)
from penstock.gateway.money import Account, Spent, output_for
from penstock.gateway.quota import OwnedLimit, Terms
from penstock.kit.errors import Refusal
from penstock.limits.allowances import Allowance, Costs, Held
from penstock.limits.prices import worst_charge

_PLURALS = {
    Metric.REQUESTS: "requests",
    Metric.INPUT_TOKENS: "input tokens",
    Metric.OUTPUT_TOKENS: "output tokens",
    Metric.TOKENS: "tokens",
    Metric.CONCURRENCY: "requests at a time",
}


class Denial(NamedTuple):
    """A refusal by a limit or a budget, and how it is told."""

    refusal: Refusal
    lines: bytes = b""
    """Further header lines."""
    status: int | None = None
    """Instead of the refusal's own."""
    metric: str = ""
    """What is counted as exceeded, if so."""
    by: RefusedBy | None = None
    """Which rule said no, if one did."""


class Claimant(Protocol):
    """Who waits to be let in: an exchange."""

    def let_in(self) -> None:
        """Go on: all that it takes is taken."""

    def turn_away(self, denial: Denial) -> None:
        """End: nothing is taken."""


class Claim:
    """What one request takes; settled exactly once.

    Args:
        claimant: The request; None when it only wants to know.
        terms: What decides about it.
        demand: What it asks for.
        most: Output tokens that its deployment gives at most.
    """

    # Defaults stand in the class: most claims change few of them.
    held: Held | None = None
    spent: Spent | None = None
    passed: frozenset[Allowance] = frozenset()
    """Meters that have too little, or may have, and stop nobody."""
    exceeded: tuple[Limit, ...] = ()
    """Rules that were exceeded and stopped nobody."""
    is_waiting = False
    deadline_s = 0.0
    """While it waits: until when."""
    cap: int | None = None
    """Output tokens for each answer that are paid for; None when no money is at stake."""
    least_cap = 0
    amounts: Sequence[int] = ()
    """What it takes of each account, in the worst case."""

    def __init__(self, claimant: Claimant | None, terms: Terms, demand: Demand, most: int) -> None:
        """See the class."""
        self.claimant = claimant
        """None when it was told: the two would keep each other alive."""
        self.terms = terms
        self.demand = demand
        self.most = most
        self.costs = _costs(terms, demand, most)
        if terms.accounts:
            cap = CAPPED_OUTPUT_TOKENS if demand.cap is None else demand.cap
            cap = min(cap, most)
            self._set_cap(cap)
            self.least_cap = min(LEAST_OUTPUT_TOKENS, cap)

    @property
    def has_waited(self) -> bool:
        """Whether it did not get at once what it takes."""
        return self.deadline_s > 0

    @property
    def hold_uses(self) -> tuple[HoldUse, ...]:
        """What it holds of which hold."""
        if self.spent is None:
            return ()
        return tuple([HoldUse(hold.id, amount) for hold, amount, _ in self.spent])

    @property
    def written_cap(self) -> int | None:
        """The cap that has to be written into the request, if so."""
        demand = self.demand
        if self.cap is None or not demand.answers or not demand.can_be_capped:
            return None
        return None if self.cap == demand.cap and not demand.has_other_caps else self.cap

    def lower_cap(self, index: int, amount: int) -> bool:
        """Ask for no more output than an amount of an account buys; False when that is too little.

        Args:
            index: Which account.
            amount: What there is of it.
        """
        terms, demand = self.terms, self.demand
        price = terms.prices[index]
        if not (terms.accounts[index].budget.lowers_cap and price.output and demand.answers):
            return False
        if not demand.can_be_capped:
            return False
        cap = output_for(price, amount, demand.most_input_tokens, demand.answers)
        if cap < self.least_cap or (self.cap is not None and cap >= self.cap):
            return False
        self._set_cap(cap)
        return True

    def limit_lines(self) -> bytes:
        """Return the header lines that tell the caller of its limits, the tightest of each kind."""
        told, held = self.terms.told, self.held
        if held is not None and held.at_ms < told.until_ms and not self.exceeded:
            return told.lines
        lines, is_plenty = lines_of(self.terms)
        if held is not None and is_plenty:
            told.lines, told.until_ms = lines, held.at_ms + TOLD_MS
        if self.exceeded:
            soft = [limit for limit in self.exceeded if limit.enforcement is Enforcement.SOFT]
            lines += exceeded_line(*soft) if soft else b""
        return lines

    def _set_cap(self, cap: int) -> None:
        demand = self.demand
        inputs, outputs = demand.most_input_tokens, cap * demand.answers
        self.cap = cap
        self.amounts = [worst_charge(price, inputs, outputs) for price in self.terms.prices]


def lines_of(terms: Terms) -> tuple[bytes, bool]:
    """Return the header lines about the limits of rates, and whether there is plenty of each."""
    lines = b""
    is_plenty = True
    for forms in terms.forms:
        least = -1
        tightest = b""
        for meter, form in forms:
            remaining = meter.remaining + meter.left
            if least < 0 or remaining < least:
                least, tightest = remaining, form
        lines += tightest % least
        is_plenty = is_plenty and least >= PLENTY
    return lines, is_plenty


def cap_line(cap: int) -> bytes:
    """Return the header line that tells of the most output tokens, when we wrote it."""
    return b"x-penstock-max-tokens: %d\r\n" % cap


UNAVAILABLE = Denial(Refusal(LIMITS_UNAVAILABLE))


def graver(one: Denial | None, other: Denial) -> Denial:
    """Return which of two denials is told: the one that lasts longer."""
    if one is None:
        return other
    return max(
        one,
        other,
        key=lambda denial: (
            denial is not UNAVAILABLE,
            not denial.refusal.error.retryable,
            denial.refusal.retry_after_s or 0,
        ),
    )


def exceeded_line(*limits: Limit) -> bytes:
    """Return the header line that names rules."""
    names = ", ".join(limit.id for limit in limits)
    return b"x-penstock-limit-exceeded: %b\r\n" % names.encode("ascii", "replace")


def never_fits(rule: OwnedLimit, bucket_limit: int, cost: int) -> Denial:
    """Return the denial of a request that takes more than a limit gives at any time."""
    return Denial(
        Refusal(
            REQUEST_TOO_LARGE,
            f"This request takes {_amount(cost, rule)}, and the limit of {rule.owner} is "
            f"{bucket_limit}: it can never be let through. Ask for less.",
        ),
        exceeded_line(rule.limit),
        by=RefusedBy(rule.limit.id, rule.limit.metric, bucket_limit),
    )


def rate_exceeded(rule: OwnedLimit, bucket_limit: int, retry_ms: int | None) -> Denial:
    """Return the denial of a request that has to wait.

    Args:
        rule: The rule.
        bucket_limit: What it gives at the moment.
        retry_ms: When there will be enough; None when nobody knows.
    """
    limit = rule.limit
    wait_ms = 1_000 if retry_ms is None else max(1, retry_ms)
    wait_s = -(-wait_ms // 1_000)
    window = f" in {limit.window_s} s" if limit.window_s else ""
    what = f"The limit of {rule.owner} is reached: {_amount(bucket_limit, rule)}{window}"
    only = f" (rule {limit.id}{_only(limit)})"
    error = CONCURRENCY_EXCEEDED if limit.metric is Metric.CONCURRENCY else RATE_EXCEEDED
    return Denial(
        Refusal(error, f"{what}{only}. Retry after {wait_s} s.", retry_after_s=wait_s),
        exceeded_line(limit) + b"retry-after-ms: %d\r\n" % wait_ms,
        metric=limit.metric,
        by=RefusedBy(limit.id, limit.metric, bucket_limit, None if retry_ms is None else wait_s),
    )


def quota_exhausted(account: Account) -> Denial:
    """Return the denial of a request that costs more than is left of a budget."""
    budget = account.budget
    return Denial(
        Refusal(
            QUOTA_EXHAUSTED,
            f"What is left of the budget in {budget.currency} does not pay for this request.",
            retry_after_s=account.reset_s,
        ),
        b"x-should-retry: false\r\n",
        budget.exhausted_status,
        metric="money",
        by=RefusedBy(budget.id, "money", None, account.reset_s),
    )


def price_missing(currency: str) -> Denial:
    """Return the denial of a request whose cost nobody knows."""
    message = f"This model has no price in {currency}, and a budget in it has to be kept."
    return Denial(Refusal(PRICE_MISSING, message, "model"))


def _amount(amount: int, rule: OwnedLimit) -> str:
    return f"{amount} {_PLURALS[rule.limit.metric]}"


def _only(limit: Limit) -> str:
    """Return which requests a rule counts, unless it counts all."""
    label = f", of {limit.label}" if limit.label else ""
    alias = f", for {limit.alias}" if limit.alias else ""
    model = f", on {limit.model}" if limit.model else ""
    return label + alias + model


def _costs(terms: Terms, demand: Demand, most: int) -> Costs:
    """Return what a request will use: output that it does not name never exceeds what it may."""
    inputs, outputs = terms.habit.estimate(demand, most)
    if demand.cap is None:
        if terms.most_output_tokens is not None:
            outputs = min(outputs, terms.most_output_tokens)
        if terms.most_tokens is not None:
            outputs = max(0, min(outputs, terms.most_tokens - inputs))
    return (1, inputs, outputs, inputs + outputs, 1)
