"""What the agent knows of one worker."""

import asyncio
from dataclasses import dataclass, field

from penstock.contract.node import AgentMessage, Apply, Drain
from penstock.node.links import Link
from penstock.node.process import Process
from penstock.node.stats import WorkerKey

AGAIN_S = 2.0
"""When a worker that has not answered is told of a snapshot again."""
REJECTED_AGAIN_S = 10.0
"""When a worker that could not serve from a snapshot is told of it again."""


@dataclass(slots=True, eq=False)
class Worker:
    """A worker's process and its connection."""

    slot: int
    epoch: int
    process: Process
    started_s: float
    """When it was started or found, on the monotonic clock."""
    is_leaving: bool = False
    """It drains, and another one has its slot."""
    snapshot_version: int = 0
    """What it said that it serves from."""
    has_rejected: bool = False
    """It said that it cannot serve from the version that it was last told of."""
    told_version: int = 0
    """The version that it was last told of."""
    told_s: float = 0.0
    link: Link | None = None
    unlinked: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while there is no connection."""

    def __post_init__(self) -> None:
        """Begin without a connection."""
        self.unlinked.set()

    @property
    def key(self) -> WorkerKey:
        """Slot and epoch: its name for ever."""
        return (self.slot, self.epoch)

    def attach(self, link: Link) -> None:
        """Take a connection, instead of the one before if there is one."""
        if self.link is not None:
            self.link.close()
        self.link = link
        self.snapshot_version = link.hello.snapshot_version
        self.unlinked.clear()

    def detach(self, link: Link) -> None:
        """Forget a connection that has ended."""
        if self.link is link:
            self.link = None
            self.unlinked.set()

    def tell(self, message: AgentMessage) -> None:
        """Tell it something; lost when there is no connection."""
        if self.link is not None:
            self.link.send(message)

    def drain(self, grace_s: float) -> bool:
        """Tell it to end when what it does is done; return whether it could be told."""
        if self.link is None:
            return False
        self.link.send(Drain(grace_s))
        return True

    def offer(self, version: int, now_s: float) -> bool:
        """Tell it to serve from `version`, unless it does or was told just now.

        Returns:
            Whether it was told before and does not serve from it yet.
        """
        if self.link is None or version == self.snapshot_version:
            return False
        was_told = self.told_version == version
        # It may be able to later, e.g. when a secret is back where it belongs.
        again_s = REJECTED_AGAIN_S if self.has_rejected else AGAIN_S
        if was_told and now_s - self.told_s < again_s:
            return False
        self.has_rejected = False
        self.link.send(Apply(version))
        self.told_version, self.told_s = version, now_s
        return was_told
