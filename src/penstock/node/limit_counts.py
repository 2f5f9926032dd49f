"""Where the agent counts limits: a file that outlives it, and the time by which it counts."""

from collections.abc import Collection
from pathlib import Path

from penstock.kit.clock import Clock
from penstock.limits.authority import Header, MemoryAuthority
from penstock.limits.slots import Slots, SlotsDamagedError
from penstock.node import log_events

MAX_DRIFT_MS = 20
"""Workers are told of the time anew when theirs is further off."""
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class LimitsTime:
    """Time as leases reckon it: the monotonic clock's, plus a number that workers are told.

    The number stays the same while the machine runs, so a new agent's time goes on from the old
    one's. At another boot it comes from the wall clock; time never goes back behind what was seen.

    Args:
        clock: The machine's.
        header: Of the file in which is counted.
        boot: Tells this boot of the machine from others, > 0; 0 when nobody knows.
    """

    def __init__(self, clock: Clock, header: "memoryview[int]", boot: int) -> None:
        """See the class."""
        self._clock = clock
        self._header = header
        base_ms = header[Header.BASE_MS]
        if not boot or header[Header.BOOT] != boot:
            base_ms = clock.wall_ns() // 1_000_000 - self._monotonic_ms()
        header[Header.BASE_MS] = max(base_ms, header[Header.SEEN_MS] - self._monotonic_ms())
        header[Header.BOOT] = boot

    @property
    def base_ms(self) -> int:
        """What is added to the monotonic clock's milliseconds."""
        return self._header[Header.BASE_MS]

    def now_ms(self) -> int:
        """Return milliseconds since the Unix epoch, or nearly so."""
        return self._monotonic_ms() + self.base_ms

    def follow(self, drift_ms: int) -> bool:
        """Take over the time of somebody who is ahead by so much; return whether it is another."""
        if abs(drift_ms) <= MAX_DRIFT_MS:
            return False
        self._header[Header.BASE_MS] += drift_ms
        return True

    def _monotonic_ms(self) -> int:
        return int(self._clock.monotonic_s() * 1_000)


class LimitCounts:
    """The authority of this node alone, and its time.

    Args:
        path: The file in which is counted.
        clock: The machine's.
        boot: Tells this boot of the machine from others.
        living: Names of the workers that live: an agent before us may have leased to them.
    """

    def __init__(self, path: Path, clock: Clock, boot: int, living: Collection[str]) -> None:
        """See the class."""
        self._clock, self._boot = clock, boot
        is_lost = bool(living) and not path.exists()
        try:
            self._open(path, is_lost=is_lost)
        except SlotsDamagedError as error:
            log_events.COUNTS_OF_LIMITS_DAMAGED.log(path=path, error=error)
            path.replace(path.with_name(f"{path.name}.damaged"))
            is_lost = True
            self._open(path, is_lost=is_lost)
        except OSError as error:
            log_events.LIMITS_COUNTED_IN_MEMORY.log(path=path, error=error)
            is_lost = True
            self._open(None, is_lost=is_lost)
        if is_lost:
            log_events.LIMITS_COUNT_AS_USED.log()
            self.authority.doubt(living)

    def _open(self, path: Path | None, *, is_lost: bool) -> None:
        self._slots = Slots(path)
        header = self._slots.header
        self.time = LimitsTime(self._clock, header, self._boot)
        if is_lost:
            header[Header.LOST_AT_MS] = self.time.now_ms()
        self.authority = MemoryAuthority(self.time.now_ms, self._slots)

    @property
    def live_nodes(self) -> "memoryview[int]":
        """Cells for how many nodes share the limits, and when that was seen."""
        return self._slots.header[Header.LIVE_NODES : Header.LIVE_NODES_AT_MS + 1]

    def sync(self) -> None:
        """Wait until what is counted is on the disk. May be called in another thread."""
        self._slots.sync()

    def close(self) -> None:
        """Let go of the file."""
        self._slots.close()


def read_boot() -> int:
    """Return what tells this boot of the machine from others; 0 when nobody knows."""
    try:
        text = _BOOT_ID.read_text(encoding="ascii")
        return int(text.strip().replace("-", ""), 16) >> 65
    except (OSError, ValueError):
        return 0
