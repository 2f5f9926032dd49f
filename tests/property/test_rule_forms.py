"""Rules of limits in their forms: kept, told to nodes, answered and written in files."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from penstock.catalog.written_rules import shorten_rules
from penstock.contract.limits import MAX_LIMIT, MAX_WINDOW_S, Enforcement, Limit, Metric
from penstock.limits.rule_forms import keep_rules, read_rules
from penstock.limits.rule_schemas import NewRuleBody, RuleBody
from penstock.limits.rules import slot_of

FIGURES = st.integers(1, MAX_LIMIT)
LAST_SECOND = 253_402_300_799


@st.composite
def rules(draw: st.DrawFn) -> Limit:
    """Return a rule that may be."""
    metric = draw(st.sampled_from(Metric))
    is_raised = draw(st.booleans())
    return Limit(
        "",
        metric,
        draw(FIGURES),
        0 if metric is Metric.CONCURRENCY else draw(st.integers(1, MAX_WINDOW_S)),
        draw(st.sampled_from([None, "chat", "a/b:c"])),
        draw(st.sampled_from([None, "meta-llama/Llama-3.3", "x y"])),
        draw(st.sampled_from(["", "key", "member"])),
        draw(st.sampled_from(Enforcement)),
        draw(FIGURES) if is_raised else None,
        draw(st.integers(0, LAST_SECOND)) if is_raised else None,
        draw(st.sampled_from([None, "team=search", "team=", "note=a=b"])),
    )


SETS = st.lists(rules(), max_size=8, unique_by=slot_of)


def _plain(found: tuple[Limit, ...]) -> list[Limit]:
    return [msgspec.structs.replace(rule, id="") for rule in found]


@given(SETS)
def test_every_form_says_the_same(wanted: list[Limit]) -> None:
    """Whatever a rule is like, it comes back from database, API and file as it was."""
    kept = keep_rules(wanted)
    found = read_rules("lim_1", kept)
    assert sorted(map(repr, _plain(found))) == sorted(map(repr, wanted))
    assert keep_rules(found) == kept
    answered = [RuleBody.of(rule).model_dump(exclude={"id"}) for rule in found]
    written = shorten_rules(answered)
    assert shorten_rules(written) == written
    for form in (answered, written):
        assert keep_rules(NewRuleBody.model_validate(rule).to_limit() for rule in form) == kept


@given(SETS, st.permutations(range(8)))
def test_the_order_says_nothing(wanted: list[Limit], order: list[int]) -> None:
    """Rules in another order are kept, and written, alike, with the same ids."""
    other = [wanted[place] for place in order if place < len(wanted)]
    assert keep_rules(other) == keep_rules(wanted)
    ids = {rule.id for rule in read_rules("lim_1", keep_rules(wanted))}
    assert len(ids) == len(wanted)
