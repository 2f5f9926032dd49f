"""What an operator asks of an agent and its workers; these are asked over their links."""

import asyncio
import itertools
from collections.abc import Callable, Iterable

import msgspec

from penstock.contract.node import Inspect, Inspected
from penstock.kit.debug_door import Parameters
from penstock.kit.inspection import Found, InspectionError, Inspector, Question
from penstock.node.settings import AgentSettings
from penstock.node.worker import Worker


class Inspections:
    """Answers an operator, itself or by a worker.

    Args:
        settings: How the agent was started.
        list_workers: Returns those that live.
        slack_s: How long a worker may take for an answer, besides what it was told to trace.
    """

    def __init__(
        self,
        settings: AgentSettings,
        list_workers: Callable[[], Iterable[Worker]],
        *,
        slack_s: float = 10.0,
    ) -> None:
        """See the class."""
        self._inspector = Inspector(msgspec.to_builtins(settings), self._show_links)
        self._list_workers = list_workers
        self._slack_s = slack_s
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[Inspected]] = {}

    async def answer(self, question: Question, parameters: Parameters) -> Found:
        """Return what the agent says of itself, or the worker in the slot `worker`.

        Raises:
            InspectionError: There is no answer.
        """
        slot = parameters.get("worker")
        if slot is None:
            return await self._inspector.answer(question)
        return await self._ask(slot, question)

    def hear(self, inspected: Inspected) -> None:
        """Take a worker's answer."""
        asked = self._asked.get(inspected.number)
        if asked is not None and not asked.done():
            asked.set_result(inspected)

    async def _ask(self, slot: str, question: Question) -> Found:
        worker = self._find(slot)
        number = next(self._numbers)
        self._asked[number] = answer = asyncio.get_running_loop().create_future()
        try:
            worker.tell(Inspect(number, question.topic, question.rows, question.trace_s))
            async with asyncio.timeout(question.trace_s + self._slack_s):
                inspected = await answer
        except TimeoutError:
            message = f"worker {slot} does not answer: it is busy or stuck"
            raise InspectionError(message) from None
        finally:
            del self._asked[number]
        if inspected.fault:
            raise InspectionError(inspected.fault)
        found: Found = msgspec.json.decode(inspected.found)
        return found

    def _find(self, slot: str) -> Worker:
        """Return the slot's worker: the newest one, where another drains."""
        workers = [each for each in self._list_workers() if each.link is not None]
        found = [each for each in workers if str(each.slot) == slot]
        if not found:
            slots = sorted({each.slot for each in workers})
            there = ", ".join(map(str, slots)) or "none"
            message = f"there is no worker {slot}; there are: {there}"
            raise InspectionError(message)
        return max(found, key=lambda each: each.epoch)

    async def _show_links(self, _question: Question) -> Found:
        rows = [
            {
                "slot": worker.slot,
                "epoch": worker.epoch,
                "pid": worker.process.pid,
                "is_connected": worker.link is not None,
                "is_leaving": worker.is_leaving,
                "snapshot_version": worker.snapshot_version,
            }
            for worker in self._list_workers()
        ]
        return {"workers": rows}
