"""The configuration feed: how records that the control plane manages come to the nodes.

A node says how far it followed (`Position`) and is answered with what changed since, or, when
that position means nothing to the database (a first time, another or a restored database), with
everything, in pages.
"""

import hashlib

import msgspec

from penstock.contract.snapshot import SnapshotFormatError
from penstock.contract.snapshot_store import checksum_of

PATH = "/node/v1/snapshot"
FORMAT = 1
MAX_WAIT_S = 30.0
"""Longest time that a question may be left open while nothing changes."""
MAX_RECORDS = 5_000
"""About how many records a page holds."""


class Position(msgspec.Struct, frozen=True):
    """A change that everything up to was followed."""

    seq: int = 0
    """Number of the change; 0 before the first."""
    stamp: str = ""
    """Tells the change from one of the same number in another database."""


class FeedPage(msgspec.Struct, frozen=True):
    """What changed, or a part of everything."""

    position: Position
    """Where the node is once it has applied this (and the pages that belong to it)."""
    puts: tuple[tuple[bytes, bytes], ...]
    deletes: tuple[bytes, ...]
    checksum: bytes
    is_full: bool = False
    """It replaces all that was fed before."""
    next_after: str = ""
    """Of a full answer: what to ask the next page with; "" on the last."""
    format: int = FORMAT


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(FeedPage).decode


def make_page(
    position: Position,
    puts: dict[bytes, bytes],
    deletes: set[bytes],
    *,
    is_full: bool = False,
    next_after: str = "",
) -> bytes:
    """Return a page as MessagePack, with its checksum."""
    all_puts, all_deletes = tuple(sorted(puts.items())), tuple(sorted(deletes))
    checksum = _checksum(position, all_puts, all_deletes)
    return _encode(FeedPage(position, all_puts, all_deletes, checksum, is_full, next_after))


def read_page(content: bytes) -> FeedPage:
    """Return the page that `make_page` made.

    Raises:
        SnapshotFormatError: Not a page, of another format, or damaged.
    """
    try:
        page = _decode(content)
    except msgspec.DecodeError as error:
        message = f"not a page of the feed: {error}"
        raise SnapshotFormatError(message) from error
    if page.format != FORMAT:
        message = f"feed format {page.format}, this version reads {FORMAT}"
        raise SnapshotFormatError(message)
    if _checksum(page.position, page.puts, page.deletes) != page.checksum:
        message = f"checksum of the feed up to {page.position.seq} is wrong"
        raise SnapshotFormatError(message)
    return page


def _checksum(
    position: Position, puts: tuple[tuple[bytes, bytes], ...], deletes: tuple[bytes, ...]
) -> bytes:
    content = checksum_of(0, position.seq, puts, deletes)
    return hashlib.sha256(content + position.stamp.encode()).digest()
