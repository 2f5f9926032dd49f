"""`penstock dev` from the first start to the last stop, as a newcomer meets it."""

import contextlib
import itertools
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from tests.fakes.plain_http import NO_TLS
from tests.fakes.ports import free_port
from typer.testing import CliRunner

from penstock.cli.main import app

PENSTOCK = str(Path(sys.executable).with_name("penstock"))
PORTS = ("gateway", "control", "metrics")
START_S = 90.0
STOP_S = 60.0


@dataclass
class Dev:
    """A running `penstock dev`."""

    process: subprocess.Popen[str]
    data: Path
    facts: dict[str, Any]

    @property
    def headers(self) -> dict[str, str]:
        """What a caller sends."""
        return {"authorization": f"Bearer {self.facts['api_key']}"}

    def chat(self, **body: Any) -> httpx.Response:
        """Ask for a chat through the gateway."""
        messages = [{"role": "user", "content": "Say hello."}]
        return httpx.post(
            f"{self.facts['base_url']}/v1/chat/completions",
            headers=self.headers,
            json={"model": "emulated-70b", "messages": messages, **body},
            timeout=30,
            verify=NO_TLS,
        )

    def next_event(self) -> dict[str, Any]:
        """Return what it says next."""
        assert self.process.stdout is not None
        event: dict[str, Any] = json.loads(self.process.stdout.readline())
        return event

    def stop(self) -> int:
        """Press Ctrl-C and return the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(STOP_S)


def penstock(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end."""
    return subprocess.run(
        [PENSTOCK, *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def follow_usage(data: Path) -> "subprocess.Popen[str]":
    """Start to follow usage."""
    command = [PENSTOCK, "usage", "--json", "--follow", "--data", str(data)]
    # Shells have what they start in the background ignore Ctrl-C, and so would this one.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def until(condition: Callable[[], Any], patience_s: float = 30.0) -> Any:
    """Return what the condition returns once that is true."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.1)
    pytest.fail("it did not happen in time")


def find_row(data: Path, request_id: str) -> dict[str, Any] | None:
    """Return the usage row of a request, if it is there already."""
    answer = penstock("usage", "--json", "--data", str(data), "--request-id", request_id)
    assert answer.returncode == 0, answer.stderr
    rows: list[dict[str, Any]] = [json.loads(line) for line in answer.stdout.splitlines()]
    assert len(rows) <= 1
    return rows[0] if rows else None


Start = Callable[..., Dev]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start `penstock dev` on free or given ports, always on the same data folder."""
    started: list[subprocess.Popen[str]] = []

    def start_one(*ports: str, workers: int = 1) -> Dev:
        ports = ports or tuple(f"--{name}-port={free_port()}" for name in PORTS)
        data = tmp_path / "data"
        process = subprocess.Popen(
            [
                *(PENSTOCK, "dev", "--json", *ports, "--data", str(data)),
                *("--model", "emulated-70b", "--workers", str(workers)),
            ],
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        started.append(process)
        return Dev(process, data, read_ready(process))

    yield start_one
    for process in started:
        if process.poll() is None:
            process.terminate()
            process.wait(STOP_S)
        assert process.stdout is not None
        process.stdout.close()


def read_ready(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Return the event that says that it is ready."""
    assert process.stdout is not None
    deadline = time.monotonic() + START_S
    for line in process.stdout:
        event: dict[str, Any] = json.loads(line)
        if event["event"] == "ready":
            return event
        assert time.monotonic() < deadline, line
    pytest.fail(f"it ended with {process.wait()}")


@pytest.mark.slow
def test_a_newcomers_first_hour(start: Start) -> None:
    """A chat works, its usage is shown, Ctrl-C ends with 0, and a second start keeps all of it."""
    dev = start()
    told = json.loads((dev.data / "dev.json").read_text())
    assert {name: dev.facts[name] for name in told} == told
    assert (dev.data / "dev.json").stat().st_mode & 0o777 == 0o600

    answer = dev.chat(max_tokens=5)
    assert answer.status_code == 200, answer.text
    request_id = answer.headers["x-request-id"]
    row = until(lambda: find_row(dev.data, request_id))
    assert row["output_tokens"] == answer.json()["usage"]["completion_tokens"] == 5
    assert row["input_tokens"] == answer.json()["usage"]["prompt_tokens"]
    story = json.loads(ask(dev, "trace", request_id, "--json"))
    assert story["usage"] == row
    assert story["node"]["is_closed"]
    assert story["node"]["endpoints"]
    whats = [step["what"].partition(" ")[0] for step in story["timeline"]]
    assert [what for what in whats if what in {"admitted:", "dispatched,", "first", "ended"}] == [
        *("admitted:", "dispatched,", "first", "ended"),
    ]
    expected = {
        "organization_name": "dev",
        "project_name": "playground",
        "key_name": "dev-key",
        "model": "emulated-70b",
        "outcome": "ok",
        "usage_source": "engine",
    }
    assert {name: row[name] for name in expected} == expected

    models = httpx.get(f"{dev.facts['base_url']}/v1/models", headers=dev.headers).json()
    assert [model["id"] for model in models["data"]] == ["emulated-70b"]
    with follow_usage(dev.data) as follower:
        assert follower.stdout is not None
        assert json.loads(follower.stdout.readline()) == row
        latest = dev.chat(max_tokens=1).headers["x-request-id"]
        assert json.loads(follower.stdout.readline())["request_id"] == latest
        follower.send_signal(signal.SIGINT)
        assert follower.wait(10) == 0

    look_inside(dev)
    follow_the_page(dev, request_id)

    doctor = penstock("doctor", "--data", str(dev.data))
    assert doctor.returncode == 0, doctor.stdout

    second = penstock("dev", "--data", str(dev.data))
    assert second.returncode == 1
    assert "Another `penstock dev`" in second.stderr

    assert dev.stop() == 0
    stopped = penstock("usage", "--data", str(dev.data))
    assert stopped.returncode == 1
    assert "does not run" in stopped.stderr

    again = start()
    assert again.facts["api_key"] == dev.facts["api_key"]
    assert again.facts["admin_token"] == dev.facts["admin_token"]
    # Their ports are others when somebody took them meanwhile.
    assert again.facts["engines"].keys() == dev.facts["engines"].keys()
    assert find_row(again.data, request_id) == row
    assert again.chat(max_tokens=1).status_code == 200
    assert again.stop() == 0


def look_inside(dev: Dev) -> None:
    """See with `penstock debug` what a request waits for, and that no listener tells it."""
    timing = {"x-emulator-itl-ms": "200", "x-emulator-output-tokens": "10000"}
    messages = [{"role": "user", "content": "canary-4711"}]
    body = {"model": "emulated-70b", "stream": True, "max_tokens": 10_000, "messages": messages}
    url = f"{dev.facts['base_url']}/v1/chat/completions"
    with (
        httpx.Client(timeout=30) as client,
        client.stream("POST", url, headers={**dev.headers, **timing}, json=body) as stream,
    ):
        lines = stream.iter_lines()
        assert next(lines)
        slots = [str(worker["slot"]) for worker in debug(dev, "connections")["workers"]]
        found = [debug(dev, "connections", "--worker", slot) for slot in slots]
        (request,) = itertools.chain.from_iterable(each["requests"] for each in found)
        assert request["request_id"] == stream.headers["x-request-id"]
        assert (request["state"], request["model"]) == ("streaming", "emulated-70b")
    assert debug(dev, "gc", "--worker", "0")["types"]
    assert debug(dev, "memory", "--worker", "0", "--trace", "0.1")["traced_s"]
    assert debug(dev, "settings")["data_path"] == str(dev.data)
    names = [row["names"] for row in debug(dev, "tasks", "--rows", "100")["tasks"]]
    assert ["supervise"] in names
    assert debug(dev, "threads", "--control")["threads"]
    for base in (dev.facts["base_url"], dev.facts["control_url"], dev.facts["metrics_url"]):
        assert httpx.get(f"{base}/debug/tasks", headers=dev.headers).status_code == 404


def follow_the_page(dev: Dev, request_id: str) -> None:
    """See each command of the page about slow requests work."""
    page = Path(__file__).parents[2] / "docs" / "how-to" / "debug-a-slow-request.md"
    blocks = re.findall(r"^```sh\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    commands = [line.replace("$REQUEST_ID", request_id) for line in lines]
    assert len(commands) > 8
    for command in commands:
        words = shlex.split(command.replace("--once", "--once --interval 0.2"))[1:]
        assert ask(dev, *words).strip()


def ask(dev: Dev, *words: str) -> str:
    """Return what a command prints; it costs no process of its own."""
    answer = CliRunner().invoke(app, [*words, "--data", str(dev.data)])
    assert answer.exit_code == 0, (words, answer.output)
    return answer.stdout


def debug(dev: Dev, *words: str) -> dict[str, Any]:
    """Return what `penstock debug` finds."""
    told = ask(dev, "debug", *words, "--json")
    assert "canary-4711" not in told
    assert dev.facts["api_key"] not in told
    found: dict[str, Any] = json.loads(told)
    return found


def test_a_stream_finishes_while_it_stops(start: Start) -> None:
    """Ctrl-C lets a stream finish, and its usage is in the store before control goes."""
    dev = start()
    body = {
        "model": "emulated-70b",
        "stream": True,
        "max_tokens": 60,
        "messages": [{"role": "user", "content": "Say hello."}],
    }
    timing = {"x-emulator-itl-ms": "50", "x-emulator-output-tokens": "60"}
    url = f"{dev.facts['base_url']}/v1/chat/completions"
    with (
        httpx.Client(timeout=30) as client,
        client.stream("POST", url, headers={**dev.headers, **timing}, json=body) as stream,
    ):
        request_id = stream.headers["x-request-id"]
        lines = stream.iter_lines()
        first = next(lines)
        dev.process.send_signal(signal.SIGINT)
        rest = [line for line in lines if line]
    assert first.startswith("data: ")
    assert rest[-1] == "data: [DONE]"
    assert dev.process.wait(STOP_S) == 0

    again = start()
    row = find_row(again.data, request_id)
    assert row is not None
    assert (row["outcome"], row["output_tokens"]) == ("ok", 60)
    assert again.stop() == 0


def test_the_dead_are_started_again(start: Start) -> None:
    """When control or the agent is killed, it runs again soon, and callers are served meanwhile."""
    dev = start()
    for module in ("penstock.control", "penstock.node"):
        (victim,) = find_processes(dev.process.pid, module)
        os.kill(victim.pid, signal.SIGKILL)
        assert dev.chat(max_tokens=1).status_code == 200
        until(partial(has_another, dev.process.pid, module, victim.pid))

    until(partial(answers, f"{dev.facts['control_url']}/health/ready"))
    answer = dev.chat(max_tokens=2)
    assert answer.status_code == 200
    assert until(lambda: find_row(dev.data, answer.headers["x-request-id"]))
    assert dev.stop() == 0


def test_nothing_outlives_a_kill(start: Start) -> None:
    """After kill -9 its processes end by themselves, and a new one takes over the same ports."""
    dev = start()
    family = psutil.Process(dev.process.pid).children(recursive=True)
    assert len(family) >= 4
    dev.process.kill()
    dev.process.wait()

    options = {"gateway": "base_url", "control": "control_url", "metrics": "metrics_url"}
    ports = ((f"--{name}-port", dev.facts[url].split(":")[2]) for name, url in options.items())
    again = start(*itertools.chain.from_iterable(ports))
    assert again.facts["base_url"] == dev.facts["base_url"]
    _, alive = psutil.wait_procs(family, timeout=30)
    assert alive == []
    # An engine that took long to end kept its port: then nodes are told of another one.
    until(lambda: again.chat(max_tokens=1).status_code == 200)
    assert again.stop() == 0


def test_its_own_project_is_managed_like_any_other(start: Start) -> None:
    """Keys can be made in the project of the file, and once it says so its changes are served."""
    dev = start(*("--gateway-port", "0", "--control-port", "0", "--metrics-port", "0"), workers=2)
    made = penstock(
        *("keys", "create", "--project", "playground", "--name", "mine", "--json"),
        *("--data", str(dev.data)),
    )
    assert made.returncode == 0, made.stderr
    secret = json.loads(made.stdout)["secret"]
    url = f"{dev.facts['base_url']}/v1/models"

    def models(key: str) -> list[str]:
        answer = httpx.get(url, headers={"authorization": f"Bearer {key}"}, verify=NO_TLS)
        return [model["id"] for model in answer.json()["data"]] if answer.is_success else []

    assert until(lambda: models(secret)) == ["emulated-70b"]
    config = dev.data / "penstock.yaml"
    text = config.read_text().partition("\n")[2]
    config.write_text(text + "- {name: second, route: emulated-70b}\n")
    assert "was applied and is served" in dev.next_event()["message"]
    for _ in range(20):  # by each worker
        assert models(secret) == ["emulated-70b", "second"]
    config.write_text(text + "- {name: second, route: nowhere}\n")
    event = dev.next_event()
    assert (event["event"], "nothing was changed" in event["message"]) == ("warning", True)
    assert models(secret) == ["emulated-70b", "second"], "a bad file changes nothing"
    config.write_text(text)
    assert "was applied and is served" in dev.next_event()["message"]
    for _ in range(20):
        assert models(dev.facts["api_key"]) == ["emulated-70b"]
    assert dev.stop() == 0


def find_processes(parent: int, module: str) -> list[psutil.Process]:
    """Return the children that run the module."""
    found = []
    for child in psutil.Process(parent).children():
        with contextlib.suppress(psutil.Error):  # one that was killed and is not buried yet
            if module in child.cmdline():
                found.append(child)
    return found


def has_another(parent: int, module: str, pid: int) -> bool:
    """Tell whether another process than this one runs the module."""
    return any(child.pid != pid for child in find_processes(parent, module))


def answers(url: str) -> bool:
    """Tell whether the URL answers 200."""
    try:
        return httpx.get(url, verify=NO_TLS).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
