"""Sees that the usage store was set back to an earlier point, and has journals shipped again.

A store that is restored from a copy lacks what came after the copy, though nodes were told that it
was stored. Receipts say how far it has a journal, and it is asked now and then, also about
journals that are done. When that is behind what it was told to have, the journal is shipped again
from there. What is stored counts once, so to ship too much costs work and nothing else.
"""

from collections.abc import Iterator, Sequence

from penstock.contract.usage import WorkerLife
from penstock.node import log_events
from penstock.node.checkpoints import Checkpoints
from penstock.node.delivery import Store
from penstock.node.progress import Position, set_back
from penstock.node.recovery import Journal
from penstock.node.tail import list_segments

_ASKED_AT_ONCE = 500
"""Lives of one question."""
_NOTHING = Position(0, 0)


async def find_lost(
    store: Store, checkpoints: Checkpoints, node_id: str, journals: Sequence[Journal]
) -> list[tuple[Journal, Position]]:
    """Return the journals of which the store has less than it was told, and what it has.

    Args:
        store: What is asked.
        checkpoints: What it was told.
        node_id: The node's id.
        journals: All that are there.

    Raises:
        NotDeliveredError: It did not answer.
    """
    told = {journal.name: checkpoints.get(journal.name).told for journal in journals}
    lost = []
    for asked in _parts([journal for journal in journals if told[journal.name] > _NOTHING]):
        lives = [WorkerLife(producer_of(node_id, journal), journal.epoch) for journal in asked]
        places = await store.places(lives)
        for journal, place in zip(asked, places or (), strict=False):
            has = Position(place.segment, place.offset)
            if has < told[journal.name]:
                lost.append((journal, has))
    return lost


def ship_again(checkpoints: Checkpoints, journal: Journal, place: Position) -> None:
    """Have a journal shipped from an earlier place, as the disk knows it.

    Args:
        checkpoints: Where that is kept.
        journal: Which.
        place: What the store has of it.

    Raises:
        OSError: It cannot be kept; nothing has changed.
    """
    saved = checkpoints.get(journal.name)
    segments = list_segments(journal.path)
    log_events.USAGE_STORE_SET_BACK.log(journal=journal.name, told=[*saved.told], has=[*place])
    if segments and Position(segments[0], 0) > max(place, Position()):
        log_events.USAGE_NOT_ON_DISK.log(journal=journal.name)
    checkpoints.save(journal.name, set_back(saved, place, segments))


def producer_of(node_id: str, journal: Journal) -> str:
    """Return the name under which a journal's events are delivered."""
    return f"{node_id}/{journal.slot}"


def _parts(journals: Sequence[Journal]) -> Iterator[Sequence[Journal]]:
    for start in range(0, len(journals), _ASKED_AT_ONCE):
        yield journals[start : start + _ASKED_AT_ONCE]
