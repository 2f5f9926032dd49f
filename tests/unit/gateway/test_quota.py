"""Whose limits and budgets count for a key, and which of them for what it asks."""

import msgspec
import pytest
from tests.fakes.worker_process import MemoryRecords, make_snapshot

from penstock.contract.limits import Limit, Metric, OwnerLimits
from penstock.contract.money import Budget, Price
from penstock.contract.snapshot import Key
from penstock.contract.snapshot_store import owner_name
from penstock.gateway.dialects.openai_usage import Usage
from penstock.gateway.estimate import Habits
from penstock.gateway.money import Purse, cost_of, output_for
from penstock.gateway.quota import Books, Terms, read_quota
from penstock.limits.allowances import Allowances
from penstock.limits.prices import worst_charge

_KEY = Key("key-a", b"", "org-a", "project-a", member="member-a")
_NOBODYS = msgspec.structs.replace(_KEY, member="")
_OWNERS = {
    "organization": owner_name("organization", "org-a"),
    "project": owner_name("project", "org-a", "project-a"),
    "key": owner_name("key", "org-a", "key-a"),
    "member": owner_name("member", "org-a", "member-a"),
}


@pytest.fixture
def records() -> MemoryRecords:
    """Return records without limits."""
    return MemoryRecords(make_snapshot([1]))


def _terms(
    records: MemoryRecords, key: Key = _KEY, alias: str = "model-a", model: str = "served"
) -> Terms:
    quota = read_quota(records, key)
    assert quota is not None
    return quota.find_terms(alias, model, 100.0, Books(Allowances(), Purse(), Habits()))


def _buckets(terms: Terms) -> list[str]:
    return [meter.bucket.id for meter in terms.meters]


def test_a_key_without_limits_has_no_quota(records: MemoryRecords) -> None:
    """Others' limits are none of its own, whatever is alike in their names."""
    for kind in ("project", "key", "member"):
        records.limits[owner_name(kind, "org-b", f"{kind}-a")] = OwnerLimits(
            limits=(Limit("r", Metric.REQUESTS, 1),)
        )
    records.limits[owner_name("organization", "org-b")] = OwnerLimits(
        limits=(Limit("r", Metric.REQUESTS, 1),)
    )
    assert read_quota(records, _KEY) is None


def test_all_owners_of_a_key_limit_it(records: MemoryRecords) -> None:
    """Each counts in a bucket of its own, which all of its keys share."""
    for kind, name in _OWNERS.items():
        records.limits[name] = OwnerLimits(limits=(Limit(f"r-{kind}", Metric.REQUESTS, 1),))
    assert _buckets(_terms(records)) == [
        "org-a/r-organization:o",
        "org-a/r-project:p.project-a",
        "org-a/r-key:k.key-a",
        "org-a/r-member:m.member-a",
    ]
    assert len(_buckets(_terms(records, _NOBODYS))) == 3


def test_a_rule_may_count_keys_or_members_one_by_one(records: MemoryRecords) -> None:
    """A key that belongs to nobody counts for itself, so that nothing is without a limit."""
    rules = (
        Limit("each-key", Metric.REQUESTS, 1, per="key"),
        Limit("each-member", Metric.TOKENS, 1, per="member"),
    )
    records.limits[_OWNERS["organization"]] = OwnerLimits(limits=rules)
    assert _buckets(_terms(records)) == [
        "org-a/each-key:k.key-a",
        "org-a/each-member:m.member-a",
    ]
    assert _buckets(_terms(records, _NOBODYS))[1] == "org-a/each-member:k.key-a"


def test_a_rule_for_a_label_counts_keys_that_carry_it(records: MemoryRecords) -> None:
    """They share a bucket of their organization; other labels, keys and organizations do not."""
    limits = OwnerLimits(limits=(Limit("r", Metric.REQUESTS, 1, label="team=search"),))
    for organization in ("org-a", "org-b"):
        records.limits[owner_name("organization", organization)] = limits
    labelled = msgspec.structs.replace(_KEY, labels=("grade=intern", "team=search"))
    other = msgspec.structs.replace(labelled, id="key-b", project="project-b", member="")
    assert _buckets(_terms(records, labelled)) == ["org-a/r:o"]
    assert _buckets(_terms(records, other)) == ["org-a/r:o"]
    foreign = msgspec.structs.replace(labelled, organization="org-b")
    assert _buckets(_terms(records, foreign)) == ["org-b/r:o"]
    for labels in ((), ("team=searches",), ("team=",), ("team",)):
        assert read_quota(records, msgspec.structs.replace(_KEY, labels=labels)) is None


def test_own_rules_replace_those_of_the_plan(records: MemoryRecords) -> None:
    """Those of the same slot; the others of the plan hold."""
    records.plans["pln_1"] = (
        Limit("plan-r", Metric.REQUESTS, 5),
        Limit("plan-t", Metric.TOKENS, 5),
    )
    own = Limit("own-r", Metric.REQUESTS, 50)
    records.limits[_OWNERS["key"]] = OwnerLimits("pln_1", (own,))
    assert _buckets(_terms(records)) == ["org-a/own-r:k.key-a", "org-a/plan-t:k.key-a"]


def test_rules_for_an_alias_or_a_model_count_no_others(records: MemoryRecords) -> None:
    """The same request counts for another rule when it goes to another model."""
    records.limits[_OWNERS["key"]] = OwnerLimits(
        limits=(
            Limit("alias", Metric.REQUESTS, 1, alias="model-a"),
            Limit("model", Metric.REQUESTS, 1, model="served"),
        )
    )
    assert len(_buckets(_terms(records))) == 2
    assert _buckets(_terms(records, alias="other")) == ["org-a/model:k.key-a"]
    assert _buckets(_terms(records, model="other")) == ["org-a/alias:k.key-a"]


def test_budgets_need_a_price_in_their_currency(records: MemoryRecords) -> None:
    """The price that holds now, its contract's first; a later one has the worker look again."""
    records.budgets[_OWNERS["organization"]] = (
        Budget("all", "EUR"),
        Budget("one", "EUR", alias="other"),
    )
    records.prices["model-a"] = (Price("EUR", 10, 1, 1, 1), Price("EUR", 500, 2, 2, 2))
    terms = _terms(records)
    assert [account.budget.id for account in terms.accounts] == ["all"]
    assert (terms.unpriced, terms.prices[0].input, terms.until_s) == (None, 1, 500)
    records.prices["model-a org-a"] = (Price("EUR", 10, 7, 7, 7),)
    records.prices["model-a org-b"] = (Price("EUR", 10, 9, 9, 9),)
    assert _terms(records).prices[0].input == 7
    records.budgets[_OWNERS["key"]] = (Budget("dollars", "USD", per="key"),)
    assert _terms(records).unpriced == "USD"
    assert _terms(records).accounts[1].subject == "k.key-a"


def test_a_budget_for_a_label_is_of_keys_that_carry_it(records: MemoryRecords) -> None:
    """Of an organization, a project or a person; another organization's is another budget."""
    budgets = (Budget("search", "EUR", label="team=search"), Budget("all", "EUR"))
    for organization in ("org-a", "org-b"):
        name = owner_name("organization", organization)
        records.budgets[name] = tuple(
            msgspec.structs.replace(each, id=f"{organization} {each.id}") for each in budgets
        )
    records.budgets[_OWNERS["member"]] = (Budget("mine", "EUR", label="team=ads", per="key"),)
    records.prices["model-a"] = (Price("EUR", 0, 1, 1, 1),)

    def told(organization: str, *labels: str) -> list[str]:
        key = msgspec.structs.replace(_KEY, organization=organization, labels=labels)
        return [account.budget.id for account in _terms(records, key).accounts]

    assert told("org-a") == told("org-a", "team=", "team=searches") == ["org-a all"]
    assert told("org-a", "grade=1", "team=search") == ["org-a search", "org-a all"]
    assert told("org-b", "team=search") == ["org-b search", "org-b all"]
    assert told("org-a", "team=ads") == ["org-a all", "mine"]


def test_what_an_amount_buys_costs_no_more_than_it() -> None:
    """A token more for each answer would."""
    price = Price("EUR", 0, input=3 * 10**12, cached_input=10**12, output=7 * 10**12)
    assert cost_of(price, Usage(10, 2, cached_input_tokens=4)) == (6 * 3 + 4 + 2 * 7) * 1_000
    assert worst_charge(price, 10, 2) == (10 * 3 + 2 * 7) * 1_000
    assert output_for(price, 44_000, 10, answers=2) == 1
    assert output_for(price, 43_999, 10, answers=2) == 0
    with_fee = msgspec.structs.replace(price, request=1_000_000)
    assert output_for(with_fee, 45_000, 10, answers=2) == 1
    assert output_for(with_fee, 44_999, 10, answers=2) == 0
