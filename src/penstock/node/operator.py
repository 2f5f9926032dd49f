"""Has engines do what the platform's operator wants of them: the control plane reaches none."""

import asyncio
from collections.abc import Mapping
from typing import Protocol

import httpx
import msgspec

from penstock.contract.operations import (
    MAX_TEXT_CHARS,
    MAX_TEXTS_CHARS,
    Claim,
    ClaimRequest,
    Outcome,
    OutcomeReport,
)
from penstock.contract.snapshot import Endpoint, Upstream
from penstock.engines.operating import find_fault, find_operation, write_request
from penstock.engines.registry import engine_of
from penstock.node import log_events
from penstock.node.backoff import doubling_s
from penstock.node.calls import CallRefusedError, NotAnsweredError, PathUnknownError
from penstock.node.engine_clients import EngineClients, FindToken, find_credential, read_words

CLAIM_PATH = "/internal/v1/engine_operations/claim"
OUTCOME_PATH = "/internal/v1/engine_operations/outcome"
DEADLINE_S = 600.0
"""Of an operation: a model of hundreds of gigabytes is loaded meanwhile."""
_WAIT_S = 20.0
_AT_ONCE = 8
_REPORTS = 6
_LAST_PAUSE_S = 30.0

_encode = msgspec.msgpack.Encoder().encode
_decode_claim = msgspec.msgpack.Decoder(Claim).decode


class Calls(Protocol):
    """The way to the control plane: `node.calls.ControlCalls`."""

    async def post(self, path: str, content: bytes) -> bytes:
        """Return the answer's body."""


class Store(Protocol):
    """Where upstreams are."""

    def list_upstreams(self) -> list[Upstream]:
        """Return all upstreams; may block."""


class Operator:
    """Takes operations from the control plane, does them, and says what came of each.

    Args:
        calls: Reaches the control plane, and waits longer than it does.
        node_id: The node's id.
        store: Where upstreams are.
        find_token: Returns what a reference to a credential stands for, if it can be had.
        transport: Replaces the network to engines in tests.
    """

    def __init__(
        self,
        calls: Calls,
        node_id: str,
        store: Store,
        find_token: FindToken,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """See the class."""
        self._calls = calls
        self._node_id = node_id
        self._store = store
        self._find_token = find_token
        self._clients = EngineClients(DEADLINE_S, transport)
        self._free = asyncio.Semaphore(_AT_ONCE)

    async def run(self) -> None:
        """Take and do operations until cancelled: what is under way then is lost."""
        failures = 0
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    await self._free.acquire()
                    try:
                        claim = await self._claim()
                        failures = 0
                    except (NotAnsweredError, msgspec.DecodeError) as error:
                        claim = None
                        failures += 1
                        if not isinstance(error, PathUnknownError):  # an older control plane
                            log_events.OPERATIONS_NOT_ASKED_FOR.log(error=error)
                        await asyncio.sleep(doubling_s(failures, first_s=1, most_s=_LAST_PAUSE_S))
                    if claim is None:
                        self._free.release()
                    else:
                        group.create_task(self._serve(claim), name="operation")
        finally:
            await self._clients.close()

    async def _claim(self) -> Claim | None:
        asking = ClaimRequest(self._node_id, _WAIT_S)
        content = await self._calls.post(CLAIM_PATH, _encode(asking))
        return _decode_claim(content) if content else None

    async def _serve(self, claim: Claim) -> None:
        try:
            report = await self.perform(claim)
            log_events.OPERATION_DONE.log(operation=claim.operation, upstream=claim.upstream)
            for number in range(_REPORTS):
                try:
                    await self._calls.post(OUTCOME_PATH, _encode(report))
                except CallRefusedError as error:
                    log_events.OUTCOME_REFUSED.log(operation=claim.id, error=error)
                except NotAnsweredError as error:
                    log_events.OUTCOME_NOT_REPORTED.log(operation=claim.id, error=error)
                    await asyncio.sleep(doubling_s(number + 1, first_s=1, most_s=_LAST_PAUSE_S))
                    continue
                return
        finally:
            self._free.release()

    async def perform(self, claim: Claim) -> OutcomeReport:
        """Do an operation at all endpoints that are meant, at once, and return what came of it.

        Nothing but an endpoint of the catalog is asked, whatever the claim says.
        """
        upstreams = await asyncio.to_thread(self._store.list_upstreams)
        upstream = next((each for each in upstreams if each.name == claim.upstream), None)
        if upstream is None:
            return self._nothing(claim, f"The node knows no upstream {claim.upstream}.")
        operation = find_operation(engine_of(upstream.provider), claim.operation)
        if operation is None or find_fault(operation, claim.arguments) is not None:
            return self._nothing(claim, f"The node knows no such operation of {upstream.provider}.")
        meant = [each for each in upstream.plain_endpoints if claim.endpoint in {None, each.url}]
        if not meant:
            which = claim.endpoint or "that is asked by HTTP"
            return self._nothing(claim, f"{claim.upstream} has no endpoint {which}.")
        headers = find_credential(upstream.credential, self._find_token)
        if headers is None:
            return self._nothing(claim, "The upstream's credential cannot be had.")
        path, body = write_request(operation, claim.arguments)
        if body:
            headers["content-type"] = "application/json"
        asks = (self._ask(upstream, each, path, body, headers) for each in meant)
        outcomes = await asyncio.gather(*asks)
        most = MAX_TEXTS_CHARS // len(outcomes)
        cut = (msgspec.structs.replace(each, text=each.text[:most]) for each in outcomes)
        return OutcomeReport(claim.id, self._node_id, tuple(cut))

    def _nothing(self, claim: Claim, fault: str) -> OutcomeReport:
        return OutcomeReport(claim.id, self._node_id, (), fault)

    async def _ask(
        self,
        upstream: Upstream,
        endpoint: Endpoint,
        path: str,
        body: bytes,
        headers: Mapping[str, str],
    ) -> Outcome:
        url = endpoint.url
        try:
            reply = await self._clients.ask(
                "POST",
                endpoint,
                path,
                upstream.tls_ca_file,
                most_bytes=MAX_TEXT_CHARS,
                headers=headers,
                body=body,
            )
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            return Outcome(url, None, type(error).__name__)
        return Outcome(url, reply.status, read_words(reply, headers, MAX_TEXT_CHARS))
