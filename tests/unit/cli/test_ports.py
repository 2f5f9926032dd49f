"""Ports: what is free is found, what is taken is named."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from tests.fakes.ports import free_port

from penstock.cli.errors import CommandError
from penstock.cli.launch import ports


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which we listen."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_listener_takes_its_port(taken: int) -> None:
    """A port is free exactly as long as nobody listens on it."""
    assert not ports.is_free(taken)
    assert ports.is_free(ports.pick_free(()))


def test_a_shared_port_counts_as_taken() -> None:
    """A port that another gateway listens on with SO_REUSEPORT is not free for a second one."""
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as server:
        assert not ports.is_free(server.getsockname()[1])


def test_preferred_ports_come_first(taken: int) -> None:
    """The first preferred port that is free and not promised is picked."""
    free, other = ports.pick_free(()), ports.pick_free(())
    assert ports.pick_free((taken, free, other)) == free
    assert ports.pick_free((0, free, other), taken=(free,)) == other


PICK = """
import sys
from penstock.cli.launch import ports
print(ports.pick_free((int(sys.argv[1]),)), flush=True)
sys.stdin.read()
"""


@contextmanager
def picking(preferred: int) -> Iterator[int]:
    """Another process that picks a port and lives on; gives the port."""
    command = [sys.executable, "-c", PICK, str(preferred)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.communicate()


def test_two_that_start_at_once_pick_different_ports() -> None:
    """A port that was picked is nobody else's, even before anybody listens on it."""
    ours = ports.pick_free(())
    with picking(ours) as other:
        assert other != ours
    assert ports.pick_free((ours,)) == ours

    theirs = free_port()
    with picking(theirs) as other:
        assert other == theirs
        assert ports.pick_free((theirs,)) != theirs
    assert ports.pick_free((theirs,)) == theirs


def test_a_port_that_is_busy_is_not_kept(taken: int) -> None:
    """Who found a preferred port busy does not keep others from it."""
    assert ports.pick_free((taken,)) != taken
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind((ports.HOST, taken))


def test_a_busy_port_is_named_with_holder_and_remedy(taken: int) -> None:
    """The error says which option's port is taken, by which process, and offers a free one."""
    with pytest.raises(CommandError) as caught:
        ports.require_free({"--control-port": ports.pick_free(()), "--gateway-port": taken})
    assert f"Port {taken} (--gateway-port)" in str(caught.value)
    assert f"process {os.getpid()} (" in str(caught.value)
    assert "--gateway-port " in caught.value.remedy
    assert caught.value.exit_code == 1


def test_one_port_for_two_is_wrong_usage() -> None:
    """Two options with the same port are told before anything is tried."""
    with pytest.raises(CommandError, match="--gateway-port and --control-port are both 8080"):
        ports.require_free({"--gateway-port": 8080, "--control-port": 8080})


def test_the_holder_of_a_free_port_is_nobody() -> None:
    """Nobody holds a free port."""
    assert ports.find_holder(ports.pick_free(())) is None
