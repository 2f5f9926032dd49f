"""What the API of plans and limits takes and answers.

On bodies of changes see `catalog.upstream_schemas`.
"""

from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self

from pydantic import AwareDatetime, BaseModel, Field, StrictInt

from penstock.audit.schemas import (
    AnswerBody,
    Id,
    PageBody,
    PageQuery,
    RequestBody,
    Text,
    Time,
    example,
)
from penstock.catalog.upstream_schemas import NameText
from penstock.catalog.written_rules import default_window_s
from penstock.contract.limits import MAX_LIMIT, Enforcement, Limit, Metric
from penstock.kit.moments import format_time, microseconds
from penstock.limits.model import (
    KeptRules,
    Limits,
    LimitsChanges,
    NewPlan,
    Plan,
    PlanChanges,
    RuleInForce,
)
from penstock.limits.rule_forms import keep_rules, read_rules

_TIMES = {"created_at": "2026-06-15T12:00:00.000000Z", "updated_at": "2026-06-15T12:00:00.000000Z"}
_PLAN_ID = "pln_6Yb3Qn8sWdEf"
_LIMITS_ID = "lim_3Hk7Vc2mXzAq"
_ORGANIZATION_ID = "org_4mJ0wq8ZtK1c"
_PROJECT_ID = "prj_9d21E8c0f1aX"
_KEY_ID = "4mJ0wq8ZtK1c"
_RULE: dict[str, Any] = {"metric": "requests", "limit": 600, "window_s": 60}
_RULE_BODY: dict[str, Any] = {
    "id": f"{_LIMITS_ID}.0f3a9c51d27e",
    **_RULE,
    "alias": None,
    "model": None,
    "per": None,
    "enforcement": "hard",
    "raised_limit": None,
    "raised_until": None,
    "label": None,
}
_OWNER: dict[str, Any] = {
    "organization_id": _ORGANIZATION_ID,
    "project_id": _PROJECT_ID,
    "owner_kind": "key",
    "key_id": _KEY_ID,
    "member_id": None,
    "service_account_id": None,
}

Figure = Annotated[StrictInt, Field(description=f"A whole number, 1 to {MAX_LIMIT:,}.")]
PlanId = Annotated[
    Id | None,
    Field(description="The plan whose rules hold, but for those that own rules replace."),
]
LabelName = Annotated[
    Text | None,
    Field(
        description="Only requests of keys with this label, NAME=VALUE; they share what it gives."
    ),
]
OwnerKindName = Literal["organization", "project", "key", "member"]


class NewRuleBody(RequestBody):
    """A rule that is to be."""

    model_config = example(**_RULE)

    metric: Metric
    limit: Figure
    window_s: Annotated[
        StrictInt | None,
        Field(
            description="Length of the sliding window, 1 second to 31 days; 60 without. "
            "Concurrency has none."
        ),
    ] = None
    alias: Annotated[Text | None, Field(description="Only requests for this alias.")] = None
    model: Annotated[
        Text | None, Field(description="Only requests that go to this model of an upstream.")
    ] = None
    per: Annotated[
        Literal["key", "member"] | None,
        Field(description="What it gives is for each key or member; all share it without."),
    ] = None
    enforcement: Annotated[
        Enforcement,
        Field(
            description="`hard` refuses; `soft` lets through and says so in metrics; `shadow` says "
            "only what it would have refused."
        ),
    ] = Enforcement.HARD
    raised_limit: Annotated[
        Figure | None, Field(description="Holds instead of `limit` until `raised_until`.")
    ] = None
    raised_until: Annotated[
        AwareDatetime | None, Field(description="ISO 8601 with a time zone, to the second.")
    ] = None
    label: LabelName = None

    def to_limit(self) -> Limit:
        """Return the rule, which has no id yet."""
        members = self.model_dump(exclude={"window_s", "per", "raised_until"})
        window_s = default_window_s(self.metric) if self.window_s is None else self.window_s
        until_us = microseconds(self.raised_until)
        return Limit(
            id="",
            window_s=window_s,
            per=self.per or "",
            raised_until=None if until_us is None else until_us // 1_000_000,
            **members,
        )


Rules = Annotated[
    list[NewRuleBody],
    Field(description="At most 64, each counting something else or in another window."),
]


class RuleBody(AnswerBody):
    """A rule."""

    model_config = example(**_RULE_BODY)

    id: Annotated[str, Field(description="Stays while its figures change.")]
    metric: str
    limit: int
    window_s: Annotated[int, Field(description="0 for concurrency.")]
    alias: str | None
    model: str | None
    per: str | None
    enforcement: str
    raised_limit: int | None
    raised_until: Time | None
    label: str | None

    @classmethod
    def of(cls, item: Limit, **members: Any) -> Self:
        """Return a rule as it is answered."""
        until_s = item.raised_until
        return super().of(
            item,
            per=item.per or None,
            raised_until=None if until_s is None else format_time(until_s * 1_000_000),
            **members,
        )


def _kept(bodies: Iterable[NewRuleBody]) -> KeptRules:
    return keep_rules(body.to_limit() for body in bodies)


def _rules(item: Plan | Limits) -> list[RuleBody]:
    """Return rules as they are answered; none when something else wrote what cannot be read."""
    try:
        return [RuleBody.of(rule) for rule in read_rules(item.id, item.rules)]
    except ValueError:
        return []


class NewPlanBody(RequestBody):
    """A plan that is to be."""

    model_config = example(name="gold", rules=[_RULE])

    name: NameText
    rules: Rules = Field(default_factory=list)

    def to_new(self) -> NewPlan:
        """Return what is to be."""
        return NewPlan(name=self.name, rules=_kept(self.rules))


class PlanChangesBody(RequestBody):
    """What of a plan is to change; what is left out stays."""

    model_config = example(rules=[_RULE | {"limit": 1_200}])

    rules: Rules = Field(default_factory=list)

    def to_changes(self) -> PlanChanges:
        """Return the members that were sent."""
        return {"rules": _kept(self.rules)} if "rules" in self.model_fields_set else {}


class PlansQuery(PageQuery):
    """Which plans are meant."""

    name: Text | None = None


class PlanBody(AnswerBody):
    """A named set of rules."""

    model_config = example(id=_PLAN_ID, name="gold", rules=[_RULE_BODY], version=1, **_TIMES)

    id: str
    name: str
    rules: list[RuleBody]
    version: int
    created_at: Time
    updated_at: Time

    @classmethod
    def of(cls, item: Plan, **members: Any) -> Self:
        """Return a plan as it is answered."""
        return super().of(item, rules=_rules(item), **members)


class PlanPage(PageBody[PlanBody]):
    """A page of plans, oldest first."""


class OwnerIds(RequestBody):
    """Whom it is about: one of them."""

    organization_id: Id | None = None
    project_id: Id | None = None
    key_id: Id | None = None
    member_id: Id | None = None
    service_account_id: Id | None = None


class NewLimitsBody(OwnerIds):
    """What is to limit somebody: name exactly one of organization, project, key and so on."""

    model_config = example(key_id=_KEY_ID, rules=[_RULE])

    plan_id: PlanId = None
    rules: Rules = Field(default_factory=list)

    def to_rules(self) -> KeptRules:
        """Return the rules as they are kept."""
        return _kept(self.rules)


class LimitsChangesBody(RequestBody):
    """What of somebody's limits is to change; what is left out stays."""

    model_config = example(rules=[_RULE | {"limit": 1_200}])

    plan_id: PlanId = Field(default_factory=lambda: None)
    rules: Rules = Field(default_factory=list)

    def to_changes(self) -> LimitsChanges:
        """Return the members that were sent."""
        changes: LimitsChanges = {}
        if "plan_id" in self.model_fields_set:
            changes["plan_id"] = self.plan_id
        if "rules" in self.model_fields_set:
            changes["rules"] = _kept(self.rules)
        return changes


class LimitsQuery(PageQuery, OwnerIds):
    """Which limits are meant."""

    owner_kind: Annotated[
        OwnerKindName | None,
        Field(description="Service accounts count as members."),
    ] = None
    plan_id: Id | None = None


class LimitsBody(AnswerBody):
    """What limits an owner."""

    model_config = example(
        id=_LIMITS_ID, **_OWNER, plan_id=None, rules=[_RULE_BODY], version=1, **_TIMES
    )

    id: str
    organization_id: str
    project_id: Annotated[str | None, Field(description="The owner, or where it is.")]
    owner_kind: str
    key_id: str | None
    member_id: str | None
    service_account_id: str | None
    plan_id: str | None
    rules: list[RuleBody]
    version: int
    created_at: Time
    updated_at: Time

    @classmethod
    def of(cls, item: Limits, **members: Any) -> Self:
        """Return limits as they are answered."""
        return super().of(item, rules=_rules(item), **members)


class LimitsPage(PageBody[LimitsBody]):
    """A page of limits, oldest first."""


class UseQuery(OwnerIds):
    """Whose limits are meant: name exactly one."""


_USED: dict[str, Any] = {
    **_RULE_BODY,
    **_OWNER,
    "plan": None,
    "limit_now": 600,
    "used": 71,
    "used_at": "2026-06-15T12:00:00.000000Z",
}


class UsedRuleBody(RuleBody):
    """A rule that bears on somebody, and how much of it is used."""

    model_config = example(**_USED)

    organization_id: str
    project_id: str | None
    owner_kind: Annotated[str, Field(description="Whose rule it is.")]
    key_id: str | None
    member_id: str | None
    service_account_id: str | None
    plan: Annotated[str | None, Field(description="Name of the plan that it is of.")]
    limit_now: Annotated[int, Field(description="With a raise that holds.")]
    used: Annotated[
        int | None,
        Field(
            description="In the window, or in flight; some seconds old. Null when no node has "
            "reported it, or when it counts each key or member on its own."
        ),
    ]
    used_at: Time | None

    @classmethod
    def of_rule(cls, item: RuleInForce, *, is_use_told: bool) -> Self:
        """Return a rule in force as it is answered."""
        owner = {name: getattr(item.owner, name) for name in _OWNER}
        used = item.used if is_use_told else None
        used_at_us = item.used_at_us if is_use_told else None
        return cls.of(
            item.rule,
            **owner,
            plan=item.plan,
            limit_now=item.limit_now,
            used=used,
            used_at=None if used_at_us is None else format_time(used_at_us),
        )


class UsedRulesBody(BaseModel):
    """The rules that bear on somebody, from the organization's on."""

    model_config = example(data=[_USED])

    data: list[UsedRuleBody]
