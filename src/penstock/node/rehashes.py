"""Tells the control plane of keys that were shown and are stored under an old pepper."""

import asyncio
from itertools import islice
from pathlib import Path

import httpx

from penstock.access.peppers import read_peppers
from penstock.contract.key_hashes import MAX_PAIRS, KeyHashes, encode_key_hashes
from penstock.kit.errors import PenstockError
from penstock.kit.tls import verify_for
from penstock.node import log_events
from penstock.node.backoff import doubling_s

PATH = "/node/v1/key-hashes"
MAX_WAITING = 10_000
"""Keys that wait for a report; of those beyond, nothing is known until they are shown again."""
_TIMEOUT = httpx.Timeout(10.0, connect=3.0)
_FIRST_PAUSE_S, _LAST_PAUSE_S = 1.0, 60.0


class NotReportedError(Exception):
    """The control plane did not take a report."""


class Rehashes:
    """What workers say of keys under an old pepper, on its way to the control plane.

    Nothing is lost when a report is: until the control plane has the new hash, each use of the key
    brings it again.

    Args:
        base_url: Of the control plane.
        token_path: File with the node's token; read each time, so it can be changed.
        secrets_folder: Where the peppers are.
    """

    def __init__(self, base_url: str, token_path: Path, secrets_folder: Path) -> None:
        """See the class."""
        self._url = base_url.rstrip("/") + PATH
        self._token_path = token_path
        self._secrets_folder = secrets_folder
        self._waiting: dict[bytes, bytes] = {}
        self._has_some = asyncio.Event()

    def add(self, hashes: tuple[tuple[bytes, bytes], ...]) -> None:
        """Remember hashes under the old and under the new pepper, until they are reported."""
        self._waiting.update(islice(hashes, MAX_WAITING - len(self._waiting)))
        if self._waiting:
            self._has_some.set()

    async def run(self) -> None:
        """Report until cancelled."""
        failures = 0
        verify = verify_for(self._url)
        async with httpx.AsyncClient(timeout=_TIMEOUT, trust_env=False, verify=verify) as client:
            while True:
                await self._has_some.wait()
                pairs = tuple(islice(self._waiting.items(), MAX_PAIRS))
                try:
                    await self._report(client, pairs)
                    failures = 0
                except NotReportedError as error:
                    failures += 1
                    pause_s = doubling_s(failures, first_s=_FIRST_PAUSE_S, most_s=_LAST_PAUSE_S)
                    log_events.KEY_HASHES_NOT_REPORTED.log(error=error, retry_s=pause_s)
                    await asyncio.sleep(pause_s)
                    continue
                for old, _ in pairs:
                    del self._waiting[old]
                if not self._waiting:
                    self._has_some.clear()

    async def _report(
        self, client: httpx.AsyncClient, pairs: tuple[tuple[bytes, bytes], ...]
    ) -> None:
        try:
            check = read_peppers(self._secrets_folder, may_create=False).check
            token = self._token_path.read_text(encoding="ascii").strip()
            answer = await client.post(
                self._url,
                content=encode_key_hashes(KeyHashes(check, pairs)),
                headers={
                    "authorization": f"Bearer {token}",
                    "content-type": "application/msgpack",
                },
            )
        except (httpx.HTTPError, PenstockError, OSError, ValueError) as error:
            message = f"{type(error).__name__}: {error}"
            raise NotReportedError(message) from None
        if not answer.is_success:
            message = f"status {answer.status_code}"
            raise NotReportedError(message)
        log_events.KEY_HASHES_REPORTED.log(count=len(pairs))
