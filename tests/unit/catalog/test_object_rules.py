"""What the catalog's objects may be like, whoever wrote them."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.catalog.errors import CATALOG_INVALID, FALLBACK_CYCLE
from penstock.catalog.feed import tell_alias, tell_deployment, tell_route, tell_upstream
from penstock.catalog.object_rules import check, check_fallbacks, find_fault
from penstock.catalog.objects import Alias, Choice, Deployment, Route, Upstream
from penstock.contract.snapshot_store import RECORD_NAME_BYTES
from penstock.kit.errors import PenstockError

STORED: dict[str, Any] = {"id": "x", "version": 1, "created_at_us": 1, "updated_at_us": 2}
UPSTREAM = Upstream(name="gpu", endpoints=["http://a"], **STORED)
DEPLOYMENT = Deployment(name="a/b:c", upstream_id="u", model="m", **STORED)
ROUTE = Route(name="r", choices=[Choice(deployment_id="d", weight=0)], fallback_id="r2", **STORED)
ALIAS = Alias(name="A", route_id="r", **STORED)
NAMES = {"u": "gpu", "d": "a/b:c", "r": "r", "r2": "s"}
OBJECTS: list[tuple[Any, Callable[..., Any]]] = [
    (UPSTREAM, tell_upstream),
    (DEPLOYMENT, tell_deployment),
    (ROUTE, tell_route),
    (ALIAS, tell_alias),
]

_scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
_anything = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def test_sound_objects_have_no_fault() -> None:
    """What has only what it must have may be like that, and comes back unchanged."""
    for item, tell in OBJECTS:
        assert find_fault(item) is None
        assert check(item) is item
        assert tell(item, NAMES) is not None


@given(st.data())
def test_no_row_is_too_odd_to_be_judged(data: st.DataObject) -> None:
    """Whatever stands in a member, the object has a fault and no record, or a record that fits."""
    item, tell = data.draw(st.sampled_from(OBJECTS))
    fields = [field.name for field in dataclasses.fields(item)]
    changed = dataclasses.replace(
        item, **{data.draw(st.sampled_from(fields)): data.draw(_anything)}
    )
    record = tell(changed, NAMES)
    if find_fault(changed) is not None:
        assert record is None
        with pytest.raises(PenstockError) as caught:
            check(changed)
        assert caught.value.error is CATALOG_INVALID
    elif record is not None:
        assert len(record[0]) <= RECORD_NAME_BYTES


@pytest.mark.parametrize(
    ("names", "circle"),
    [
        (["a", "a"], "a -> a"),
        (["a", "b", "a"], "a -> b -> a"),
        (["a", "b", "c", "b"], "b -> c -> b"),
    ],
)
def test_circles_of_fallbacks_are_named(names: list[str], circle: str) -> None:
    """A chain that comes back is refused with the routes that it goes round in."""
    check_fallbacks(names[:-1])
    with pytest.raises(PenstockError) as caught:
        check_fallbacks(names)
    assert caught.value.error is FALLBACK_CYCLE
    assert str(caught.value).endswith(f": {circle}.")
