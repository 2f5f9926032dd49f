"""Test processes that run side by side never start two servers on one port."""

import socket
import subprocess
import sys
from pathlib import Path

from tests.fakes.ports import free_port

COUNT = 250
"""More than one block."""
OTHER = f"""
from tests.fakes.ports import free_port
print(*(free_port() for _ in range({COUNT})), flush=True)
input()
"""


def test_two_processes_are_given_different_ports() -> None:
    """No port is given twice while its process lives, and the system gives it to nobody."""
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", OTHER],
        cwd=root,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout is not None
        theirs = {int(port) for port in other.stdout.readline().split()}
        ours = {free_port() for _ in range(COUNT)}
        others: set[int] = set()
        for _ in range(COUNT):
            with socket.socket() as anybody:
                anybody.bind(("127.0.0.1", 0))
                others.add(anybody.getsockname()[1])
        other.communicate("\n")
    assert len(theirs) == len(ours) == COUNT
    assert not theirs & ours
    assert not others & (theirs | ours)


def test_a_server_can_listen_there() -> None:
    """A port is free for whoever is told of it, with SO_REUSEPORT and without."""
    for is_shared in (False, True):
        with socket.create_server(("127.0.0.1", free_port()), reuse_port=is_shared) as server:
            assert server.getsockname()[1] > 0
