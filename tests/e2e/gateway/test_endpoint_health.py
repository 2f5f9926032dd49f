"""Endpoints that cannot be asked, seen by the callers of a real worker."""

import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from tests.fakes.fake_agent import running_agent
from tests.fakes.http_rig import CHAT, chat, get, request
from tests.fakes.raw_http import ask
from tests.fakes.recording_engine import running_engine
from tests.fakes.worker_process import KEY, make_snapshot, running_worker

from penstock.contract.node import Applied, Apply, ContextLengths, NotReady

SOON_S = 20.0


def test_nothing_goes_where_the_agent_heard_no(tmp_path: Path) -> None:
    """An endpoint that is not ready gets no request, until it is or nothing is known any more."""
    with running_engine() as one, running_engine() as two, running_agent() as agent:
        url = f"http://127.0.0.1:{one.port}"
        agent.greeting = [NotReady((("engine", url),), 60.0), Apply(1)]
        with running_worker(tmp_path, [one.port, two.port], agent_socket=str(agent.path)) as worker:
            agent.wait(Applied)
            for _ in range(6):
                assert ask(worker.port, request()).status == 200
            assert (len(one.seen), len(two.seen)) == (0, 6)
            agent.send(NotReady((), 60.0))
            _ask_until(worker.port, lambda: len(one.seen) > 0)
            agent.send(NotReady((("engine", url),), 0.5))
            before = len(one.seen)
            # No further word comes: it is believed for half a second, and no longer.
            _ask_until(worker.port, lambda: len(one.seen) > before + 1)


def test_a_failure_of_what_is_too_long_is_the_callers(tmp_path: Path) -> None:
    """A request longer than the model takes is 400, where the agent read how much that is."""
    with running_engine() as engine, running_agent() as agent:
        agent.greeting = [ContextLengths((("engine", "served-model", 100),)), Apply(1)]
        with running_worker(tmp_path, [engine.port], agent_socket=str(agent.path)) as worker:
            agent.wait(Applied)
            models = ask(worker.port, get(b"/v1/models", key=KEY))
            assert b'"max_model_len":100' in models.body
            failing = b"x-emulator-status: 500"
            long = ask(worker.port, request(chat("word " * 200), failing))
            assert long.status == 400
            assert b'"code":"context_length_exceeded"' in long.body
            assert ask(worker.port, request(CHAT, failing)).status == 502
            assert ask(worker.port, request(chat("word " * 200))).status == 200


def test_when_all_are_said_not_to_be_ready_all_are_asked(tmp_path: Path) -> None:
    """What is said of more than half of the endpoints keeps no request from them."""
    with running_engine() as one, running_engine() as two, running_agent() as agent:
        noes = [("engine", f"http://127.0.0.1:{engine.port}") for engine in (one, two)]
        agent.greeting = [NotReady(tuple(noes), 60.0), Apply(1)]
        with running_worker(tmp_path, [one.port, two.port], agent_socket=str(agent.path)) as worker:
            agent.wait(Applied)
            assert ask(worker.port, request()).status == 200
            assert len(one.seen) + len(two.seen) == 1


def test_a_target_whose_endpoints_are_out_comes_last(tmp_path: Path) -> None:
    """Of a route's choices the one that cannot be asked is passed over, whatever its weight."""
    with running_engine() as one, running_engine() as two, running_agent() as agent:
        plain = make_snapshot([one.port])
        (upstream,), (deployment,), (route,) = plain.upstreams, plain.deployments, plain.routes
        (choice,) = route.choices
        (other,) = make_snapshot([two.port]).upstreams
        snapshot = msgspec.structs.replace(
            plain,
            upstreams=(upstream, msgspec.structs.replace(other, name="other")),
            deployments=(
                deployment,
                msgspec.structs.replace(deployment, name="other", upstream="other"),
            ),
            routes=(
                msgspec.structs.replace(
                    route,
                    choices=(
                        msgspec.structs.replace(choice, weight=1000),
                        msgspec.structs.replace(choice, deployment="other", weight=1),
                    ),
                ),
            ),
        )
        agent.greeting = [NotReady((("engine", f"http://127.0.0.1:{one.port}"),), 60.0), Apply(1)]
        with running_worker(
            tmp_path, [], snapshot=snapshot, agent_socket=str(agent.path)
        ) as worker:
            agent.wait(Applied)
            for _ in range(3):
                assert ask(worker.port, request()).status == 200
            assert (len(one.seen), len(two.seen)) == (0, 3)


def _ask_until(port: int, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        assert ask(port, request()).status == 200
