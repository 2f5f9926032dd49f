"""Tells the control plane how much of which limit is used."""

import asyncio

import msgspec

from penstock.contract.limits import UseReport
from penstock.node import log_events
from penstock.node.backoff import doubling_s
from penstock.node.calls import CallRefusedError, ControlCalls, NotAnsweredError
from penstock.node.limit_uses import LimitUses

PATH = "/internal/v1/limits/use"
REPORT_S = 2.0
_LAST_PAUSE_S = 60.0

_encode = msgspec.msgpack.Encoder().encode


class UseReports:
    """Reports what has changed, every `REPORT_S` while anything does.

    Args:
        calls: Reaches the control plane.
        node_id: The node's id.
        uses: What is known.
    """

    def __init__(self, calls: ControlCalls, node_id: str, uses: LimitUses) -> None:
        """See the class."""
        self._calls = calls
        self._node_id = node_id
        self._uses = uses

    async def run(self) -> None:
        """Report until cancelled."""
        failures = 0
        while True:
            pause_s = doubling_s(failures + 1, first_s=REPORT_S, most_s=_LAST_PAUSE_S)
            await asyncio.sleep(pause_s)
            try:
                await self.report()
                failures = 0
            except NotAnsweredError as error:
                failures += 1
                log_events.USE_OF_LIMITS_NOT_REPORTED.log(error=error)

    async def report(self) -> None:
        """Report all that has changed.

        Raises:
            NotAnsweredError: It is not known to be reported; next time it is again.
        """
        while uses := self._uses.collect():
            try:
                await self._calls.post(PATH, _encode(UseReport(self._node_id, uses)))
            except CallRefusedError:
                raise  # it would be refused again
            except NotAnsweredError:
                self._uses.restore(uses)
                raise
