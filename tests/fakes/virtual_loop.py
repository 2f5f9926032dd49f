"""An event loop whose time passes only when nothing else is left to do."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


class _Selector(selectors.DefaultSelector):
    """Waits for nothing: where others would wait, time has passed."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Let the time pass."""
        if timeout:
            self.now_s += timeout
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """Timers run in order, at once; `time` says what time it would be."""

    def __init__(self) -> None:
        """See the class."""
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        """Return seconds since the loop was made."""
        return self._virtual.now_s


def run_virtual(main: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine in a loop of its own, in as little time as it takes to compute."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
