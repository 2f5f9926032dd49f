"""Where the engines of an upstream publish events of their KV caches. Pure.

It is one text, the same in the database, in penstock.yaml and on the command line.
"""

from typing import NamedTuple

from penstock.catalog.rules import parse_ports


class KvPorts(NamedTuple):
    """Ports of an endpoint's host."""

    events: tuple[int, ...]
    replay: tuple[int, ...] = ()
    """Where what was missed can be had again, one for each of `events`; none where it cannot."""


def parse_kv_events(text: str) -> KvPorts:
    """Return where events are published.

    Args:
        text: Ports, and behind a slash as many more where what was missed can be had again.

    Raises:
        ValueError: What is wrong and the remedy.

    >>> parse_kv_events("5557/5558")
    KvPorts(events=(5557,), replay=(5558,))
    >>> parse_kv_events("5557-5559").events
    (5557, 5558, 5559)
    """
    events, has_replay, replay = text.partition("/")
    ports = KvPorts(parse_ports(events), parse_ports(replay) if has_replay else ())
    if has_replay and len(ports.events) != len(ports.replay):
        message = "has more ports of one kind than of the other; write as many behind the slash"
        raise ValueError(message)
    return ports
