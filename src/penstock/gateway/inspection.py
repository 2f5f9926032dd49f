"""What an operator may ask of a worker, besides what every process can say of itself.

Imported when somebody asks for the first time: most workers never are.
"""

import heapq
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from operator import itemgetter
from typing import cast

import msgspec

from penstock.contract.node import Inspect, Inspected, WorkerSettings
from penstock.gateway.endpoint import AnyEndpoint
from penstock.gateway.grpc.call import Call
from penstock.gateway.http2.server import Http2Downstream
from penstock.gateway.record import RequestRecord
from penstock.gateway.server import Downstream
from penstock.kit.inspection import (
    HURRIED_BLOCKS,
    Breaks,
    Found,
    InspectionError,
    Inspector,
    Question,
)

Connections = Collection[Downstream | Http2Downstream]


class Inspection:
    """Answers an agent's questions.

    Args:
        settings: How the worker was started.
        connections: Those of callers; they come and go.
        pools: Returns the connections to engines, with the names of upstreams.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        connections: Connections,
        pools: Callable[[], Iterable[tuple[str, AnyEndpoint]]],
    ) -> None:
        """See the class."""
        self._connections = connections
        self._pools = pools
        self._inspector = Inspector(
            msgspec.to_builtins(settings), self._list_connections, most_blocks=HURRIED_BLOCKS
        )

    async def answer(self, asked: Inspect) -> Inspected:
        """Return what is found, or why nothing is."""
        question = Question(asked.topic, asked.rows, asked.trace_s)
        try:
            found = await self._inspector.answer(question)
        except InspectionError as error:
            return Inspected(asked.number, b"", str(error))
        return Inspected(asked.number, msgspec.json.encode(found))

    async def _list_connections(self, question: Question) -> Found:
        """Return the requests under way, oldest first, and the connections to engines."""
        breaks, now_ns = Breaks(), time.time_ns()
        requests: list[Found] = []
        for connection in list(self._connections):
            requests += (record.describe(now_ns) for record in _records(connection))
            await breaks.take()
        pools = [
            {
                "upstream": name,
                "endpoint": pool.endpoint.url,
                "connections": pool.connection_count,
                "in_flight": pool.in_flight,
            }
            for name, pool in self._pools()
        ]
        return {
            "connections": len(self._connections),
            "in_flight": len(requests),
            "requests": heapq.nlargest(question.rows, requests, key=itemgetter("age_ms")),
            "endpoints": heapq.nlargest(question.rows, pools, key=itemgetter("in_flight")),
        }


def _records(connection: Downstream | Http2Downstream) -> Iterator[RequestRecord]:
    servers: list[Downstream | Call]
    if isinstance(connection, Downstream):
        servers = [connection]
    else:
        streams = connection.connection.streams.values()
        servers = [cast("Call", stream.receiver) for stream in streams]
    return (server.exchange for server in servers if server.exchange is not None)
