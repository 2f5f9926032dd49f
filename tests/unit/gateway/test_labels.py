"""Labels that callers give their requests: what is one, and what is refused at once."""

import msgspec
import pytest
from tests.fakes.worker_process import KEY

from penstock.gateway.errors import LABELS_INVALID
from penstock.gateway.labels import Labels, add_metadata, check_labels, read_labels
from penstock.gateway.limits import LABELS
from penstock.gateway.request import Request
from penstock.kit.errors import Refusal


@pytest.mark.parametrize(
    ("value", "labels"),
    [
        (b"", ()),
        (b"  ", ()),
        (b"team=search", (("team", "search"),)),
        (b"team=a, cost_center=4711\t,env.x-y=B/1:2+3", (
            ("cost_center", "4711"), ("env.x-y", "B/1:2+3"), ("team", "a"))),
        (b"a=" + b"x" * 64, (("a", "x" * 64),)),
        (b"a" * 32 + b"=1", (("a" * 32, "1"),)),
        (b",".join(b"l%d=v" % n for n in range(LABELS)), tuple(
            sorted((f"l{n}", "v") for n in range(LABELS)))),
    ],
)  # fmt: skip
def test_labels_are_read_in_order_of_name(value: bytes, labels: Labels) -> None:
    """Names and values come out sorted, without the space around them."""
    assert read_labels(value) == labels


@pytest.mark.parametrize(
    "value",
    [
        b"team",
        b"team=",
        b"=search",
        b"team=a,",
        b"team=a,,cost=b",
        b"Team=a",
        b"team =a",
        b"team=a b",
        b"team=a=b",
        b"mail=someone@example.com",
        b"team=\xc3\xa9",
        b"team=\xff",
        b"team=a\x0b",
        b"team=-a",
        b"1team=a",
        b'team="a"',
        b"a=" + b"x" * 65,
        b"a" * 33 + b"=1",
        b"team=a,team=a",
        b",".join(b"l%d=v" % n for n in range(LABELS + 1)),
    ],
)
def test_what_is_no_label_is_refused(value: bytes) -> None:
    """Prose, addresses, repetitions and too many are 400, in a sentence of printable ASCII."""
    refusal = read_labels(value)
    assert isinstance(refusal, Refusal)
    assert refusal.error is LABELS_INVALID
    assert refusal.error.status == 400
    assert refusal.message.isascii()
    assert refusal.message.isprintable()
    assert len(refusal.message) < 400


def test_only_listed_names_may_be_used() -> None:
    """A label that the operator does not list is refused, and the caller is told which are."""
    labels = read_labels(b"team=a,nickname=b")
    assert not isinstance(labels, Refusal)
    assert check_labels(labels, {"team", "nickname"}) is None
    refusal = check_labels(labels, {"team", "feature"})
    assert refusal is not None
    assert refusal.error is LABELS_INVALID
    assert "'nickname'" in refusal.message
    assert "feature, team" in refusal.message


def test_a_second_header_is_refused() -> None:
    """Labels stand in one header: which of two counts is nobody's guess."""
    request = Request()
    assert request.take_field(b"X-Penstock-Labels", b"team=a")
    assert request.refusal is None
    assert request.labels == (("team", "a"),)
    assert request.take_field(b"x-penstock-labels", b"team=b")
    assert request.refusal is not None
    assert request.refusal.error is LABELS_INVALID
    assert KEY not in request.refusal.message


@pytest.mark.parametrize(
    ("metadata", "labels"),
    [
        (b'{"team":"b","feature":"chat"}', (("feature", "chat"), ("team", "a"))),
        (b'{"nickname":"x","mail":"someone@example.com"}', (("team", "a"),)),
        (b'{"feature":"two words"}', (("team", "a"),)),
        (b'{"feature":"' + b"x" * 65 + b'"}', (("team", "a"),)),
        (b'{"feature":7}', (("team", "a"),)),
        (b'{"feature":{"a":"b"}}', (("team", "a"),)),
        (b"null", (("team", "a"),)),
        (b'"feature"', (("team", "a"),)),
        (b"[]", (("team", "a"),)),
    ],
)
def test_metadata_adds_labels_that_are_wanted(metadata: bytes, labels: Labels) -> None:
    """Of metadata, listed members in the form of labels count; the header's come first."""
    raw = msgspec.Raw(metadata)
    assert add_metadata((("team", "a"),), raw, {"team", "feature", "mail"}) == labels


def test_header_and_metadata_are_not_too_many_together() -> None:
    """However many members metadata has, a request has so many labels at most."""
    names = [f"l{number}" for number in range(2 * LABELS)]
    raw = msgspec.Raw(msgspec.json.encode(dict.fromkeys(names, "v")))
    found = add_metadata((("team", "a"),), raw, names)
    assert len(found) == LABELS
    assert ("team", "a") in found
