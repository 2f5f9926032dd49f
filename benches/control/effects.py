"""How long a change takes until every worker acts on it."""

import http.client
import json
import time
from collections.abc import Callable, Iterable

import psutil
from tests.fakes.production import MODEL, Production

PATIENCE_S = 30.0
_TRIES = 200


class Probe:
    """A connection that stays open to one worker.

    Args:
        production: Whose worker.
        connection: The connection.
    """

    def __init__(self, production: Production, connection: http.client.HTTPConnection) -> None:
        """See the class."""
        self._production = production
        self._connection = connection

    def ask(self, secret: str, model: str = MODEL) -> int:
        """Return the status of a chat with a key."""
        body = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
        headers = {"authorization": f"Bearer {secret}", "content-type": "application/json"}
        self._connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        answer = self._connection.getresponse()
        answer.read()
        return answer.status


def open_probes(production: Production) -> list[Probe]:
    """Return a probe of each worker.

    They share a port, so connections are opened until all are met.

    Raises:
        TimeoutError: Some worker was never met.
    """
    agent = psutil.Process(production.processes["agent"].pid)
    workers = {child.pid: child for child in agent.children()}
    probes: dict[int, Probe] = {}
    for _ in range(_TRIES):
        connection = http.client.HTTPConnection("127.0.0.1", production.api_port, timeout=10)
        connection.connect()
        port = connection.sock.getsockname()[1]
        probe = Probe(production, connection)
        probe.ask("nobody")
        for pid, worker in workers.items():
            peers = {each.raddr.port for each in worker.net_connections("tcp") if len(each.raddr)}
            if port in peers and pid not in probes:
                probes[pid] = probe
        if len(probes) == len(workers):
            return list(probes.values())
    message = "a worker takes no connection"
    raise TimeoutError(message)


def measure_effect(
    change: Callable[[], object],
    probes: Iterable[Probe],
    secret: str,
    *,
    is_good: bool,
    model: str = MODEL,
) -> float:
    """Return the seconds from sending a change until the last worker acts on it.

    Args:
        change: Makes the change and returns when it is answered.
        probes: One of each worker.
        secret: The key that it concerns.
        is_good: Whether the key is served afterwards, or refused.
        model: What is asked for with it.

    Raises:
        TimeoutError: It never came, or it went away again.
    """
    began_s = time.monotonic()
    change()
    waiting = list(probes)
    while waiting:
        waiting = [probe for probe in waiting if (probe.ask(secret, model) == 200) != is_good]
        if time.monotonic() > began_s + PATIENCE_S:
            message = f"a change was not felt within {PATIENCE_S} s"
            raise TimeoutError(message)
    taken_s = time.monotonic() - began_s
    if any((probe.ask(secret, model) == 200) != is_good for probe in probes):
        message = "a change was felt and then it was not"
        raise TimeoutError(message)
    return taken_s
