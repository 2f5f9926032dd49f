"""Asks a process over HTTP whether it is ready."""

from collections.abc import Awaitable, Callable

import httpx

from penstock.kit.tls import verify_for

_TIMEOUT_S = 2.0


def ready_when(client: httpx.AsyncClient, *urls: str) -> Callable[[], Awaitable[bool]]:
    """Return a question that is true once every URL answers 200.

    Args:
        client: Kept open by the caller as long as the question is asked.
        urls: Asked in order; those behind the first that fails are not asked.
    """

    async def ask() -> bool:
        for url in urls:
            try:
                answer = await client.get(url, timeout=_TIMEOUT_S)
            except httpx.HTTPError:
                return False
            if answer.status_code != httpx.codes.OK:
                return False
        return True

    return ask


def works_with(
    client: httpx.AsyncClient, url: str, key: str, times: int
) -> Callable[[], Awaitable[bool]]:
    """Return a question that is true once a gateway knows a key, whatever it may do with it.

    Args:
        client: As for `ready_when`.
        url: Asked with the key.
        key: An API key.
        times: How often it must be known in a row: each time any worker may answer.
    """
    headers = {"authorization": f"Bearer {key}"}

    async def ask() -> bool:
        for _ in range(times):
            try:
                answer = await client.get(url, headers=headers, timeout=_TIMEOUT_S)
            except httpx.HTTPError:
                return False
            if answer.status_code == httpx.codes.UNAUTHORIZED or answer.is_server_error:
                return False
        return True

    return ask


def probe_client() -> httpx.AsyncClient:
    """Return a client for questions to our own processes: no proxy, no kept connection."""
    # A kept connection would hold up the drain of the one that was asked.
    limits = httpx.Limits(max_keepalive_connections=0)
    return httpx.AsyncClient(trust_env=False, limits=limits, verify=verify_for("http:"))
