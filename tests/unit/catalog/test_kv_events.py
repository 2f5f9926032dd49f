"""Ports where engines publish events of their KV caches."""

import pytest

from penstock.catalog.kv_events import parse_kv_events


def test_ports_are_as_elsewhere() -> None:
    """Several are lists and ranges, with as many where events can be had again, or none."""
    assert parse_kv_events("5557").events == (5557,)
    assert parse_kv_events("5557-5559/6557,6558,6559").replay == (6557, 6558, 6559)


@pytest.mark.parametrize("text", ["", "x", "0", "65536", "5557-", "5/", "5/6-7", "1 2", "5/6/7"])
def test_other_ports_are_refused(text: str) -> None:
    """And it is said what to write."""
    with pytest.raises(ValueError, match=r"write|use|correct"):
        parse_kv_events(text)
