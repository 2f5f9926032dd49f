"""What an alias offers to whom; pure, from records in memory."""

import msgspec
import pytest
from tests.fakes.worker_process import PEPPER, MemoryRecords, build_runtime, make_snapshot

from penstock.contract.money import Price
from penstock.contract.snapshot import (
    Alias,
    Choice,
    Deployment,
    Endpoint,
    Policy,
    Route,
    Snapshot,
    Upstream,
)
from penstock.contract.snapshot_store import grant_name
from penstock.gateway.errors import MODEL_UNPRICED, RESIDENCY_DENIED, UNUSABLE
from penstock.gateway.limits import FALLBACK_DEPTH, KNOWN_LISTS, KNOWN_OFFERS
from penstock.gateway.offer import Offer
from penstock.gateway.runtime import Principal, Runtime
from penstock.kit.errors import Refusal

_A = Principal("key-a", "org-a", "project-a", None, None)
_A2 = Principal("key-a2", "org-a", "project-a2", None, None)
_B = Principal("key-b", "org-b", "project-b", None, None)
_ENDPOINTS = (Endpoint("http", "127.0.0.1", 1),)

_SNAPSHOT = Snapshot(
    version=1,
    created_at_ns=1,
    keys=(),
    upstreams=(
        Upstream("eu", "vllm", _ENDPOINTS, region="eu-de", data_class="eu_only"),
        Upstream("us", "vllm", _ENDPOINTS, region="us-east", data_class="any"),
        Upstream("unsaid", "vllm", _ENDPOINTS),
        Upstream("sealed", "vllm", _ENDPOINTS, credential="credential:crd_platform"),
        Upstream("empty", "vllm", ()),
    ),
    deployments=(
        Deployment("on-eu", "eu", "m-eu"),
        Deployment("on-us", "us", "m-us", max_output_tokens=500),
        Deployment("on-unsaid", "unsaid", "m"),
        Deployment("on-sealed", "sealed", "m"),
        Deployment("own-token", "sealed", "m", credential="credential:crd_deployment"),
        Deployment("on-empty", "empty", "m"),
        Deployment("dangling", "no-such", "m"),
    ),
    routes=(
        Route("both", (Choice("on-eu", 3), Choice("on-us", 1)), fallback="last"),
        Route("last", (Choice("on-unsaid", 0),)),
        Route("sealed", (Choice("on-sealed"),)),
        Route("token", (Choice("own-token"),)),
        Route(
            "holes", (Choice("dangling"), Choice("no-such"), Choice("on-empty")), fallback="last"
        ),
        Route("nowhere", (Choice("dangling"),), fallback="no-such"),
        Route("circle", (Choice("dangling"),), fallback="circle"),
        Route("mixed", (Choice("on-sealed"), Choice("on-us"))),
    ),
    aliases=(
        Alias("both", "both"),
        Alias("closed", "both", is_open=False),
        Alias("sealed", "sealed"),
        Alias("token", "token"),
        Alias("holes", "holes"),
        Alias("nowhere", "nowhere"),
        Alias("circle", "circle"),
        Alias("mixed", "mixed"),
    ),
)


@pytest.fixture
def records() -> MemoryRecords:
    """Return records that a test may add to."""
    return MemoryRecords(_SNAPSHOT)


def _find(
    runtime: Runtime, alias: str, principal: Principal = _A
) -> list[list[str]] | Refusal | None:
    """Return the deployments of each tier."""
    found = runtime.find_offer(principal, msgspec.Raw(msgspec.json.encode(alias)))
    if not isinstance(found, Offer):
        return found
    return [[target.deployment.name for target in tier] for tier in found.tiers]


def _token(runtime: Runtime, alias: str, principal: Principal = _A) -> bytes:
    found = runtime.find_offer(principal, msgspec.Raw(msgspec.json.encode(alias)))
    assert isinstance(found, Offer), found
    return found.first.authorization.removeprefix(b"authorization: Bearer ").strip()


def test_choices_and_fallbacks_make_tiers(records: MemoryRecords) -> None:
    """A route's choices come first, then those of the routes that stand in for it."""
    runtime = build_runtime(records, PEPPER)
    assert _find(runtime, "both") == [["on-eu", "on-us"], ["on-unsaid"]]
    offer = runtime.find_offer(_A, msgspec.Raw(b'"both"'))
    assert isinstance(offer, Offer)
    assert (offer.has_choice, offer.max_output_tokens) == (True, 1_000_000)
    assert [target.weight for tier in offer.tiers for target in tier] == [3, 1, 0]


def test_missing_pieces_are_passed_over(records: MemoryRecords) -> None:
    """Choices that lead nowhere are left out; an alias with nothing left is as good as absent."""
    runtime = build_runtime(records, PEPPER)
    assert _find(runtime, "holes") == [["on-unsaid"]]
    for alias in ("nowhere", "circle", "no-such"):
        assert _find(runtime, alias) is None


def test_fallbacks_are_followed_so_far_and_no_further() -> None:
    """A chain of fallbacks ends at its bound, whatever the records say."""
    count = FALLBACK_DEPTH + 3
    routes = tuple(
        Route(f"route-{number}", (Choice("on-eu"),), fallback=f"route-{number + 1}")
        for number in range(count)
    )
    long = msgspec.structs.replace(_SNAPSHOT, routes=routes, aliases=(Alias("long", "route-0"),))
    found = _find(build_runtime(long, PEPPER), "long")
    assert found == [["on-eu"]] * (1 + FALLBACK_DEPTH)


def test_an_adapter_is_asked_for_as_its_engine_wants_it() -> None:
    """Most engines are asked for the adapter's name, SGLang for the model's and the adapter's."""
    adapter = Deployment("a", "eu", "legal", adapter_of="base", adapter_path="/legal")
    for provider, model in (("vllm", b'"legal"'), ("sglang", b'"base:legal"')):
        snapshot = msgspec.structs.replace(
            _SNAPSHOT,
            upstreams=(Upstream("eu", provider, _ENDPOINTS),),
            deployments=(adapter, Deployment("b", "eu", "base")),
            routes=(Route("a", (Choice("a"),)), Route("b", (Choice("b"),))),
            aliases=(Alias("a", "a"), Alias("b", "b")),
        )
        runtime = build_runtime(snapshot, PEPPER)
        for alias, is_adapter in (("a", True), ("b", False)):
            offer = runtime.find_offer(_A, msgspec.Raw(msgspec.json.encode(alias)))
            assert isinstance(offer, Offer)
            assert offer.has_adapter == offer.first.is_adapter == is_adapter
            assert bytes(offer.first.model) == (model if is_adapter else b'"base"')


@pytest.mark.parametrize("owner", [("org-a",), ("org-a", "project-a")], ids=["org", "project"])
def test_a_closed_alias_wants_a_grant(records: MemoryRecords, owner: tuple[str, ...]) -> None:
    """An alias that is not open is there for the grant's owner alone."""
    assert _find(build_runtime(records, PEPPER), "closed") is None
    records.grants.add(grant_name("closed", *owner))
    runtime = build_runtime(records, PEPPER)
    assert _find(runtime, "closed") == [["on-eu", "on-us"], ["on-unsaid"]]
    assert (_find(runtime, "closed", _A2) is None) == (len(owner) == 2)
    assert _find(runtime, "closed", _B) is None
    bound = msgspec.structs.replace(_A, aliases=frozenset({"both"}))
    assert _find(runtime, "closed", bound) is None, "a grant does not widen a key"
    assert "closed" in runtime.list_alias_names(_A)
    assert runtime.may_use(_A, "closed")
    assert "closed" not in runtime.list_alias_names(_B)
    assert not runtime.may_use(_B, "closed")
    assert "closed" not in runtime.list_alias_names(bound)


@pytest.mark.parametrize(
    ("policies", "found"),
    [
        ([Policy()], [["on-eu", "on-us"], ["on-unsaid"]]),
        ([Policy(data_classes=("eu_only",))], [["on-eu"]]),
        ([Policy(data_classes=("eu_only", "any"))], [["on-eu", "on-us"]]),
        ([Policy(regions=("us-east",))], [["on-us"]]),
        ([Policy(regions=("us-east",), data_classes=("eu_only",))], None),
        ([Policy(data_classes=())], None),
        ([Policy(regions=("eu-de", "us-east")), Policy(data_classes=("any",))], [["on-us"]]),
        ([Policy(regions=("eu-de",)), Policy(regions=("us-east",))], None),
        ([Policy(regions=("elsewhere",))], None),
    ],
)
def test_policies_of_organization_and_project_both_hold(
    records: MemoryRecords, policies: list[Policy], found: list[list[str]] | None
) -> None:
    """Data goes where both policies allow; an upstream of which nothing is said is nowhere."""
    owners = [("org-a", None), ("org-a", "project-a")]
    for orders in (owners, owners[::-1]):
        records.policies = dict(zip(orders, policies, strict=False))
        runtime = build_runtime(records, PEPPER)
        assert _find(runtime, "both") == (found or Refusal(RESIDENCY_DENIED))
        assert ("both" in runtime.list_alias_names(_A)) == (found is not None)
        assert runtime.may_use(_A, "both") == (found is not None)
        assert _find(runtime, "both", _B) == [["on-eu", "on-us"], ["on-unsaid"]]


def test_a_no_to_a_place_comes_behind_the_no_to_an_alias(records: MemoryRecords) -> None:
    """Whoever may not use an alias does not learn that it exists from a policy, either."""
    records.policies = {("org-a", None): Policy(regions=())}
    runtime = build_runtime(records, PEPPER)
    assert _find(runtime, "closed") is None
    bound = msgspec.structs.replace(_A, aliases=frozenset({"sealed"}))
    assert _find(runtime, "both", bound) is None


class _Damaged(MemoryRecords):
    """Records of which those of policies are damaged."""

    def find_policy(self, organization: str, project: str | None = None) -> Policy | None:
        """Fail for whomever."""
        _sound(organization, organization)
        return super().find_policy(organization, project)


def test_a_policy_that_cannot_be_read_allows_nothing() -> None:
    """A damaged policy is trouble of ours, to be tried again, and lets no data out."""
    runtime = build_runtime(_Damaged(_SNAPSHOT), PEPPER)
    assert _find(runtime, "both") == Refusal(UNUSABLE)
    assert runtime.list_alias_names(_A) == []
    assert not runtime.may_use(_A, "both")


class _Poisoned(MemoryRecords):
    """Records of which one deployment, one route and one alias are damaged."""

    def find_deployment(self, name: str) -> Deployment | None:
        """Fail for one."""
        return super().find_deployment(_sound(name, "on-eu"))

    def find_route(self, name: str) -> Route | None:
        """Fail for one."""
        return super().find_route(_sound(name, "last"))

    def find_alias(self, name: str) -> Alias | None:
        """Fail for one."""
        return super().find_alias(_sound(name, "sealed"))


def _sound(name: str, damaged: str) -> str:
    if name == damaged:
        raise msgspec.DecodeError
    return name


def test_a_damaged_record_harms_nothing_beside_it() -> None:
    """What cannot be read is as good as absent, and the rest serves."""
    runtime = build_runtime(_Poisoned(_SNAPSHOT), PEPPER)
    assert _find(runtime, "both") == [["on-us"]]
    assert _find(runtime, "sealed") is None


def test_a_credential_without_a_token_makes_its_choice_unusable(records: MemoryRecords) -> None:
    """A choice without a token is passed over, and taken up once the token is there."""
    runtime = build_runtime(records, PEPPER)
    assert _find(runtime, "mixed") == [["on-us"]]
    assert _find(runtime, "sealed") == Refusal(UNUSABLE)
    assert "sealed" in runtime.list_alias_names(_A), "it is trouble, not a No"
    runtime = build_runtime(records, PEPPER, tokens={"crd_platform": "sk-platform"})
    assert _find(runtime, "mixed") == [["on-sealed", "on-us"]]
    assert _token(runtime, "sealed") == b"sk-platform"


def test_the_nearest_credential_is_shown(records: MemoryRecords) -> None:
    """An organization's own credential goes before the deployment's, that before the upstream's."""
    tokens = {"crd_platform": "sk-p", "crd_deployment": "sk-d", "crd_own": "sk-own"}
    records.own_credentials = {("org-a", "sealed"): "crd_own"}
    runtime = build_runtime(records, PEPPER, tokens=tokens)
    shown = [_token(runtime, alias, who) for who in (_A, _A2, _B) for alias in ("sealed", "token")]
    assert shown == [b"sk-own"] * 4 + [b"sk-p", b"sk-d"]


def test_nothing_stands_in_for_a_credential_of_ones_own(records: MemoryRecords) -> None:
    """Without the token of its own credential an organization is served on nobody else's."""
    tokens = {"crd_platform": "sk-p", "crd_deployment": "sk-d"}
    records.own_credentials = {("org-a", "sealed"): "crd_own"}
    runtime = build_runtime(records, PEPPER, tokens=tokens)
    assert _find(runtime, "sealed") == Refusal(UNUSABLE)
    assert _find(runtime, "mixed") == [["on-us"]]
    assert _token(runtime, "sealed", _B) == b"sk-p"


def test_what_is_remembered_is_one_owners_and_bounded(records: MemoryRecords) -> None:
    """Offers are remembered for the project that asked, in a bounded number, lists likewise."""
    runtime = build_runtime(records, PEPPER)
    model = msgspec.Raw(b'"both"')
    assert runtime.find_offer(_A, model) is runtime.find_offer(_A, model)
    assert runtime.find_offer(_A, model) is not runtime.find_offer(_A2, model)
    for number in range(KNOWN_OFFERS + 5):
        runtime.find_offer(msgspec.structs.replace(_B, project=f"p-{number}"), model)
    assert len(runtime._offers) <= KNOWN_OFFERS
    for number in range(KNOWN_LISTS + 5):
        runtime.list_alias_names(msgspec.structs.replace(_B, project=f"p-{number}"))
    assert len(runtime._lists) <= KNOWN_LISTS


def test_make_snapshot_offers_no_choice() -> None:
    """Where there is no choice, none is made: no turn is drawn."""

    def turn() -> float:
        pytest.fail("a turn was drawn")

    runtime = build_runtime(make_snapshot([1]), PEPPER, turn=turn)
    offer = runtime.find_offer(_A, msgspec.Raw(b'"model-a"'))
    assert isinstance(offer, Offer)
    assert not offer.has_choice


_EUR = Price("EUR", 100, 1, 1, 1)


@pytest.mark.parametrize(
    ("prices", "allowed"),
    [
        ((), False),
        ((_EUR,), True),
        ((Price("EUR", 100, 0, 0, 0),), True),
        ((Price("USD", 100, 1, 1, 1),), False),
        ((Price("EUR", 201, 1, 1, 1),), False),
        ((_EUR, Price("EUR", 150, 0, 0, 0, is_none=True, is_unpriced=True)), False),
        ((_EUR, Price("EUR", 150, 0, 0, 0, is_none=True)), True),
    ],
    ids=["none", "price", "free", "other-currency", "later", "ended", "without-a-bound"],
)
def test_who_pays_for_all_may_use_what_has_a_price(
    records: MemoryRecords, prices: tuple[Price, ...], *, allowed: bool
) -> None:
    """An alias without a price in the currency is refused and not listed; others have it."""
    records.billed["org-a"] = "EUR"
    records.prices["both"] = prices
    runtime = build_runtime(records, PEPPER, now_s=lambda: 200.5)
    assert (_find(runtime, "both") != Refusal(MODEL_UNPRICED)) == allowed
    assert runtime.may_use(_A, "both") == allowed
    assert runtime.list_alias_names(_A) == (["both"] if allowed else [])
    assert _find(runtime, "both", _B) == [["on-eu", "on-us"], ["on-unsaid"]]
    assert _find(runtime, "closed") is None, "prices do not say that it exists"


def test_an_offer_ends_with_the_price_that_it_rests_on(records: MemoryRecords) -> None:
    """What is kept of offers and lists is forgotten when a price begins or ends."""
    now_s = [99.0]
    records.billed["org-a"] = "EUR"
    end = Price("EUR", 200, 0, 0, 0, is_none=True, is_unpriced=True)
    records.prices["both"] = (_EUR, end)
    runtime = build_runtime(records, PEPPER, now_s=lambda: now_s[0])
    for at_s, allowed in ((99.0, False), (100.0, True), (199.9, True), (200.0, False)):
        now_s[0] = at_s
        runtime.sweep()
        for _ in range(2):
            assert (_find(runtime, "both") != Refusal(MODEL_UNPRICED)) == allowed
            assert runtime.list_alias_names(_A) == (["both"] if allowed else [])
