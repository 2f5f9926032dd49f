"""Asks a process over HTTP whether it is ready."""

from collections.abc import Awaitable, Callable

import httpx

from penstock.contract.feed import PATH
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


def serves_newest(
    client: httpx.AsyncClient, metrics_url: str, control_url: str, node_token: str
) -> Callable[[], Awaitable[bool]]:
    """Return a question that is true once all workers serve from what control has.

    Args:
        client: As for `ready_when`.
        metrics_url: Of the node's agent, which says how far it followed control's feed.
        control_url: Of control, which says whether there is anything behind that.
        node_token: What the node asks control with.
    """
    headers = {"authorization": f"Bearer {node_token}"}

    async def ask() -> bool:
        try:
            node = await client.get(f"{metrics_url}/health/ready", timeout=_TIMEOUT_S)
            if node.status_code != httpx.codes.OK:
                return False
            feed = node.json()["feed"]
            position = feed["position"]
            # Whoever is at 0 followed nothing yet, and would be answered with everything.
            if not feed["is_served"] or position["seq"] == 0:
                return False
            behind = await client.get(
                control_url + PATH, params=position, headers=headers, timeout=_TIMEOUT_S
            )
        except httpx.HTTPError:
            return False
        return behind.status_code == httpx.codes.NO_CONTENT

    return ask


def probe_client() -> httpx.AsyncClient:
    """Return a client for questions to our own processes: no proxy, no kept connection."""
    # A kept connection would hold up the drain of the one that was asked.
    limits = httpx.Limits(max_keepalive_connections=0)
    return httpx.AsyncClient(trust_env=False, limits=limits, verify=verify_for("http:"))
