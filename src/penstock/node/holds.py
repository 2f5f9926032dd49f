"""Has money held for workers by the control plane, and given back.

The agent keeps nothing about money: a worker says again what may be lost, and what it asked twice
under one name is held once. Only when nobody knows whether something is held does the agent ask on
until it knows, and gives it back.
"""

import asyncio
from collections.abc import Coroutine
from itertools import islice
from typing import Any

import msgspec

from penstock.contract.money import FreeRequest, HoldAnswer, HoldRequest
from penstock.contract.node import (
    CheckHolds,
    FreeHolds,
    HoldsChecked,
    HoldsGranted,
    WantHolds,
)
from penstock.node import log_events
from penstock.node.backoff import doubling_s
from penstock.node.calls import CallRefusedError, ControlCalls, NotAnsweredError, NotDoneError
from penstock.node.delivery import FREE_PATH
from penstock.node.links import Link

HOLD_PATH = "/internal/v1/holds"
_MAX_FREED = 5_000
_MAX_UNKNOWN = 10_000
"""Takings of which nobody knows whether anything is held. What is beyond is free again when their
worker's life is over."""
_CHECK_S = 1.0
"""Who answers later than this is not there."""
_FIRST_PAUSE_S, _LAST_PAUSE_S = 0.2, 5.0

_encode = msgspec.msgpack.Encoder().encode
_decode_answer = msgspec.msgpack.Decoder(HoldAnswer).decode

Life = tuple[str, int]
"""Producer and epoch."""


class Holds:
    """Stands between workers and the control plane's database.

    Args:
        calls: Reaches the control plane.
        node_id: The node's id.
    """

    def __init__(self, calls: ControlCalls, node_id: str) -> None:
        """See the class."""
        self.failure_count = 0
        """Calls that the control plane did not answer."""
        self._calls = calls
        self._node_id = node_id
        self._unknown: dict[str, HoldRequest] = {}
        self._freeing: set[str] = set()
        """Takings of which all that is held is being given back."""
        self._freed: dict[Life, dict[str, int]] = {}
        self._has_work = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None

    def hear(self, link: Link, message: WantHolds | FreeHolds | CheckHolds) -> None:
        """Do what a worker asks for; never waits."""
        life = self._producer(link.hello.slot), link.hello.epoch
        if isinstance(message, FreeHolds):
            self._free(life, message.freed)
        elif isinstance(message, CheckHolds):
            self._spawn(self._check(link, life, message.at_ms))
        elif message.take_id in self._freeing:
            link.send(HoldsGranted(message.take_id, None))
        else:
            # It asks again, so it does not know that it was told of nothing: the answer counts.
            self._unknown.pop(message.take_id, None)
            request = HoldRequest(*life, message.take_id, message.organization, message.asks)
            self._spawn(self._hold(link, request))

    async def run(self) -> None:
        """Give back what is free until cancelled; raise what goes wrong in answering."""
        failures = 0
        while True:
            await self._has_work.wait()
            if self._failure is not None:
                raise self._failure
            try:
                await self._send_freed()
                await self._resolve()
                failures = 0
                if not self._freed and self._failure is None:
                    self._has_work.clear()
            except NotAnsweredError as error:
                failures += 1
                self.failure_count += 1
                pause_s = doubling_s(failures, first_s=_FIRST_PAUSE_S, most_s=_LAST_PAUSE_S)
                log_events.HOLDS_NOT_GIVEN_BACK.log(error=error, retry_s=pause_s)
                await asyncio.sleep(pause_s)

    async def close(self) -> None:
        """Leave nothing half done."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _hold(self, link: Link, request: HoldRequest) -> None:
        answer = HoldAnswer(None)
        try:
            answer = await self._ask(request)
        except NotDoneError as error:
            self.failure_count += 1
            log_events.NOTHING_HELD.log(error=error)
        except NotAnsweredError as error:
            self.failure_count += 1
            log_events.HOLD_UNKNOWN.log(error=error)
            if len(self._unknown) < _MAX_UNKNOWN:
                self._unknown[request.take_id] = request
                self._has_work.set()
        # Lost with its connection, the answer is asked for again.
        link.send(HoldsGranted(request.take_id, answer.holds, answer.shortage))

    async def _check(self, link: Link, life: Life, at_ms: int) -> None:
        """Tell a worker whether its holds could be changed in the database, by changing nothing."""
        is_there = True
        try:
            async with asyncio.timeout(_CHECK_S):
                await self._calls.post(FREE_PATH, _encode(FreeRequest(*life, ())))
        except (NotAnsweredError, TimeoutError):
            self.failure_count += 1
            is_there = False
        link.send(HoldsChecked(at_ms, is_there))

    async def _ask(self, request: HoldRequest) -> HoldAnswer:
        content = await self._calls.post(HOLD_PATH, _encode(request))
        try:
            return _decode_answer(content)
        except msgspec.DecodeError as error:
            message = f"the answer cannot be read: {error}"
            raise NotAnsweredError(message) from None

    async def _resolve(self) -> None:
        """Find out what is held although nobody was told, and have it given back."""
        failure: NotAnsweredError | None = None
        for take_id, request in list(self._unknown.items()):
            try:
                answer = await self._ask(request)
            except CallRefusedError:
                answer = HoldAnswer(None)
            except NotAnsweredError as error:
                failure = error
                continue
            if self._unknown.pop(take_id, None) is None:
                continue  # its worker has asked again
            held = {hold.id: hold.amount for hold in answer.holds or ()}
            if held:
                self._freeing.add(take_id)
                self._free((request.producer, request.epoch), tuple(held.items()))
        if failure is not None:
            raise failure

    async def _send_freed(self) -> None:
        while self._freed:
            life, amounts = next(iter(self._freed.items()))
            part = dict(islice(amounts.items(), _MAX_FREED))
            try:
                await self._calls.post(FREE_PATH, _encode(FreeRequest(*life, tuple(part.items()))))
            except CallRefusedError as error:
                log_events.FREED_HOLDS_REFUSED.log(producer=life[0], holds=len(part), error=error)
            for hold, amount in part.items():
                if amounts.get(hold) == amount:  # it was not freed further meanwhile
                    del amounts[hold]
            if not amounts and self._freed.get(life) is amounts:
                del self._freed[life]
        self._freeing.clear()

    def _free(self, life: Life, freed: tuple[tuple[str, int], ...]) -> None:
        for hold, amount in freed:
            amounts = self._freed.setdefault(life, {})
            amounts[hold] = max(amount, amounts.get(hold, 0))
            self._has_work.set()

    def _producer(self, slot: int) -> str:
        return f"{self._node_id}/{slot}"

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name="hold")
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._failure = task.exception()
            self._has_work.set()
