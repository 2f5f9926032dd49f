"""Has a collector take messages: again after failures, for a while, and counted either way."""

import asyncio
import random
from collections import Counter
from typing import Final

from penstock.node import log_events
from penstock.node.backoff import doubling_s
from penstock.node.telemetry.door import Door, NotTakenError, Signal

FIRST_PAUSE_S: Final = 0.5
MOST_PAUSE_S: Final = 10.0
KEPT_S: Final = 60.0
"""How long a message is tried again: what comes after it waits."""


class Sender:
    """Sends to one collector. Nothing is lost or waited for elsewhere because of it.

    Args:
        door: The way to it.
        timeout_s: How long one delivery may take.
    """

    def __init__(self, door: Door, *, timeout_s: float) -> None:
        """See the class."""
        self._door = door
        self._timeout_s = timeout_s
        self.sent: Counter[str] = Counter()
        """Parts (spans, points of data) that were taken, by signal."""
        self.lost: Counter[tuple[str, str]] = Counter()
        """Parts that were not, by signal and why: `refused`, `gave_up`, `full`."""
        self.failures: Counter[str] = Counter()
        """Deliveries that failed, by signal."""

    async def send(self, signal: Signal, content: bytes, count: int) -> bool:
        """Deliver a message; return whether it was taken.

        Args:
            signal: What it is.
            content: The request of the signal's service, as protobuf.
            count: How many spans or points of data are in it.
        """
        loop = asyncio.get_running_loop()
        until_s = loop.time() + KEPT_S
        failures = 0
        while True:
            try:
                rejected = min(await self._post(signal, content), count)
            except NotTakenError as error:
                failures += 1
                self.failures[signal.name] += 1
                log_events.TELEMETRY_NOT_TAKEN.log(signal=signal.name, why=str(error))
                pause_s = error.wait_s or doubling_s(
                    failures, first_s=FIRST_PAUSE_S, most_s=MOST_PAUSE_S
                ) * random.uniform(0.5, 1)  # noqa: S311 - no secret
                if error.may_retry and loop.time() + pause_s < until_s:
                    await asyncio.sleep(pause_s)
                    continue
                self.lost[signal.name, "gave_up" if error.may_retry else "refused"] += count
                return False
            self.sent[signal.name] += count - rejected
            self.lost[signal.name, "refused"] += rejected
            return True

    async def close(self) -> None:
        """Let go of the connections."""
        await self._door.close()

    async def _post(self, signal: Signal, content: bytes) -> int:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._door.post(signal, content)
        except TimeoutError:
            message = "no answer in time"
            raise NotTakenError(message, may_retry=True) from None
