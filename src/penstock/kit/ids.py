"""Time-ordered identifiers (UUIDv7, RFC 9562) cheap enough to mint one a request."""

from collections.abc import Callable

_VERSION_AND_VARIANT = 0x7 << 76 | 0b10 << 62


def format_uuid7(unix_ms: int, random_bits: int) -> str:
    """Format a UUIDv7 from its time and its randomness.

    The lowest 8 bits are left zero: they hold the attempt number of a usage event, and 0 is the
    billable one.

    Args:
        unix_ms: Milliseconds since the Unix epoch, in [0, 2**48).
        random_bits: 66 random bits, in [0, 2**66).

    Returns:
        The canonical 36-character lower-case form.

    Source: RFC 9562, section 5.7.
    """
    number = (
        (unix_ms << 80)
        | _VERSION_AND_VARIANT
        | (random_bits & 0xFFF) << 64
        | (random_bits >> 12 & 0x3FFFFFFFFFFFFF) << 8
    )
    text = number.to_bytes(16, "big").hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def uuid7_ms(identifier: str) -> int:
    """Return the milliseconds since the Unix epoch that a UUIDv7 carries."""
    return int(identifier[:8] + identifier[9:13], 16)


class EventIds:
    """Mints event ids.

    Args:
        wall_ns: Returns nanoseconds since the Unix epoch.
        random_bits: Returns that many random bits, e.g. `random.Random(seed).getrandbits`; ids
            are unique, not secret, so a seeded generator is enough.
    """

    __slots__ = ("_random_bits", "_wall_ns")

    def __init__(self, wall_ns: Callable[[], int], random_bits: Callable[[int], int]) -> None:
        """See the class."""
        self._wall_ns = wall_ns
        self._random_bits = random_bits

    def next(self) -> str:
        """Return a new id; ids of different milliseconds sort by time."""
        return format_uuid7(self._wall_ns() // 1_000_000, self._random_bits(66))
