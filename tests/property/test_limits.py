"""Authorities over limits, whatever is taken, repeated, given back and done to the clock."""

from hypothesis import settings
from tests.fakes.limits_machine import LimitsMachine

from penstock.limits.authority import Authority, MemoryAuthority


class MemoryMachine(LimitsMachine):
    """The authority in an agent's memory."""

    async def make_authority(self) -> Authority:
        """See `LimitsMachine`."""
        return MemoryAuthority(lambda: self.now_ms)


TestMemory = MemoryMachine.TestCase
TestMemory.settings = settings(max_examples=80, stateful_step_count=40)
