"""Which limits and budgets decide about a principal's requests."""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import msgspec

from penstock.contract.limits import Enforcement, Limit, Metric, OwnerLimits, Per
from penstock.contract.money import Budget, Price
from penstock.contract.snapshot import Key
from penstock.contract.snapshot_store import OwnerKind, owner_name
from penstock.gateway.dialects.openai import limit_form
from penstock.gateway.estimate import Habit, Habits
from penstock.gateway.limits import TERMS
from penstock.gateway.money import Account, Purse
from penstock.gateway.till import Till
from penstock.limits.allowances import METRICS, Allowance, Allowances, Meters
from penstock.limits.prices import price_at
from penstock.limits.rules import bucket_of, merge, subject_of

_NEVER = float("inf")


class Records(Protocol):
    """Where the snapshot's records of limits and budgets are."""

    def find_limits(self, owner: bytes) -> OwnerLimits | None:
        """Return the limits of an owner, as `owner_name` names it."""

    def find_plan(self, plan: str) -> tuple[Limit, ...]:
        """Return the limits of a plan; none when it is not known."""

    def find_budgets(self, owner: bytes) -> tuple[Budget, ...]:
        """Return the hard budgets of an owner, as `owner_name` names it."""

    def find_prices(self, alias: str, organization: str) -> tuple[Price, ...]:
        """Return the prices of an alias for an organization, by currency and time."""


class OwnedLimit(NamedTuple):
    """A rule and whom it counts."""

    limit: Limit
    subject: str
    owner: str
    """For people."""


class OwnedBudget(NamedTuple):
    """A hard budget and whom it counts."""

    budget: Budget
    subject: str


class Told:
    """What callers were told last: where there is plenty, many are told the same."""

    __slots__ = ("lines", "until_ms")

    def __init__(self) -> None:
        """Nothing yet."""
        self.lines = b""
        self.until_ms = 0
        """For how long, in the authority's time."""


class Terms(msgspec.Struct, frozen=True, eq=False):
    """All that decides about requests of one principal for one alias and model."""

    organization: str
    meters: Meters
    rules: tuple[OwnedLimit, ...]
    """Of each meter."""
    strict: Meters
    """The meters of hard rules."""
    lenient: frozenset[Allowance]
    """The others: they stop nobody."""
    accounts: tuple[Account, ...]
    prices: tuple[Price, ...]
    """Of each account."""
    unpriced: str | None
    """Currency of a budget that the alias has no price in."""
    habit: Habit
    most_output_tokens: int | None
    """With more, hard limits of output alone can never be kept."""
    most_tokens: int | None
    """The same for input and output together."""
    forms: tuple[tuple[tuple[Allowance, bytes], ...], ...]
    """What callers are told, by metric: the meters of it and their lines, see `limit_form`."""
    told: "Told"
    tills: dict[int, Till]
    """What frequent requests draw from, by their kind; see `Demand`."""
    until_s: float
    """Seconds since the Unix epoch: then a raise ends or a price begins."""


class Quota:
    """The rules of one principal, as one version of the snapshot has them.

    Args:
        records: Where they are.
        key: Whose they are.
    """

    def __init__(self, records: Records, key: Key) -> None:
        """See the class."""
        self._records = records
        self._key = key
        # Once, what a plan counts in one bucket for several owners that have it.
        limits = {(each.limit.id, each.subject): each for each in self._read_limits()}
        self.limits = tuple(limits.values())
        self.budgets = tuple(self._read_budgets())
        self._is_by_model = any(each.limit.model is not None for each in self.limits)
        self._terms: dict[str, Terms] = {}
        self.drawn: dict[int, Till] = {}
        """What requests drew from last, by their kind."""

    def find_terms(self, alias: str, model: str, now_s: float, books: "Books") -> Terms:
        """Return what decides about requests for an alias that go to a model.

        Args:
            alias: What is asked for.
            model: The upstream's name of the model.
            now_s: Seconds since the Unix epoch.
            books: What the worker keeps.
        """
        name = f"{alias}\0{model}" if self._is_by_model else alias
        terms = self._terms.get(name)
        if terms is None or now_s >= terms.until_s:
            if len(self._terms) >= TERMS:
                self._terms.clear()
            terms = self._terms[name] = self._make(alias, model, now_s, books)
        return terms

    def _make(self, alias: str, model: str, now_s: float, books: "Books") -> Terms:
        organization = self._key.organization
        rules = tuple(
            each
            for each in self.limits
            if each.limit.alias in {None, alias} and each.limit.model in {None, model}
        )
        meters = tuple(
            books.allowances.get(
                bucket_of(each.limit, organization, each.subject, int(now_s)),
                METRICS.index(each.limit.metric),
            )
            for each in rules
        )
        lenient = frozenset(
            meter
            for meter, rule in zip(meters, rules, strict=True)
            if rule.limit.enforcement is not Enforcement.HARD
        )
        budgets = [each for each in self.budgets if each.budget.alias in {None, alias}]
        all_prices = self._records.find_prices(alias, organization) if budgets else ()
        prices = [price_at(all_prices, each.budget.currency, int(now_s)) for each in budgets]
        priced = tuple(price for price in prices if price is not None)
        unpriced = [
            each.budget.currency
            for each, price in zip(budgets, prices, strict=True)
            if price is None
        ]
        changes = [each.limit.raised_until for each in rules]
        changes += [price.valid_from_s for price in all_prices]
        return Terms(
            organization=organization,
            meters=meters,
            rules=rules,
            strict=tuple(meter for meter in meters if meter not in lenient),
            lenient=lenient,
            accounts=tuple(
                books.purse.get(each.budget, organization, each.subject) for each in budgets
            ),
            prices=priced,
            unpriced=unpriced[0] if unpriced else None,
            habit=books.habits.get(organization, alias),
            most_output_tokens=_least_limit(meters, rules, Metric.OUTPUT_TOKENS),
            most_tokens=_least_limit(meters, rules, Metric.TOKENS),
            forms=_forms(meters, rules),
            told=Told(),
            tills={},
            until_s=min((at for at in changes if at is not None and at > now_s), default=_NEVER),
        )

    def _read_limits(self) -> Iterator[OwnedLimit]:
        for kind, owner in self._owners():
            found = self._records.find_limits(owner_name(kind, self._key.organization, owner))
            if found is None:
                continue
            plan = () if found.plan is None else self._records.find_plan(found.plan)
            for limit in merge(found.limits, plan):
                if not self._carries(limit.label):
                    continue
                subject = self._subject(kind, owner, limit.per)
                owned = f"each {limit.per} of the {kind}" if limit.per else f"the {kind}"
                yield OwnedLimit(limit, subject, owned)

    def _read_budgets(self) -> Iterator[OwnedBudget]:
        for kind, owner in self._owners():
            name = owner_name(kind, self._key.organization, owner)
            for budget in self._records.find_budgets(name):
                if not self._carries(budget.label):
                    continue
                subject = self._subject(kind, owner, budget.per) if budget.per else ""
                yield OwnedBudget(budget, subject)

    def _carries(self, label: str | None) -> bool:
        return label is None or label in self._key.labels

    def _owners(self) -> Iterator[tuple[OwnerKind, str]]:
        key = self._key
        yield "organization", ""
        yield "project", key.project
        yield "key", key.id
        if key.member:
            yield "member", key.member

    def _subject(self, kind: OwnerKind, owner: str, per: Per) -> str:
        return subject_of(kind, owner, per, key=self._key.id, member=self._key.member)


class Books(NamedTuple):
    """What a worker keeps over all versions of the snapshot."""

    allowances: Allowances
    purse: Purse
    habits: Habits


def read_quota(records: Records, key: Key) -> Quota | None:
    """Return the rules of a key; None when there are none.

    Raises:
        msgspec.DecodeError: One of them cannot be read.
    """
    quota = Quota(records, key)
    return quota if quota.limits or quota.budgets else None


def _least_limit(meters: Meters, rules: tuple[OwnedLimit, ...], metric: Metric) -> int | None:
    return min(
        (
            meter.bucket.limit
            for meter, rule in zip(meters, rules, strict=True)
            if rule.limit.metric is metric and rule.limit.enforcement is Enforcement.HARD
        ),
        default=None,
    )


def _forms(
    meters: Meters, rules: tuple[OwnedLimit, ...]
) -> tuple[tuple[tuple[Allowance, bytes], ...], ...]:
    by_metric: dict[int, list[tuple[Allowance, bytes]]] = {}
    for meter, rule in zip(meters, rules, strict=True):
        bucket = meter.bucket
        if not bucket.is_permits and rule.limit.enforcement is not Enforcement.SHADOW:
            reset_s = -(-bucket.sub_window_ms * bucket.count // 1_000)
            line = limit_form(meter.metric, bucket.limit, reset_s)
            by_metric.setdefault(meter.metric, []).append((meter, line))
    return tuple(tuple(forms) for _, forms in sorted(by_metric.items()))
