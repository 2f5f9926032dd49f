"""The control plane as a process."""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from tests.fakes.ports import free_port
from tests.unit.metering.usage_events import make_body, make_event

from penstock.control.program import main

START_DEADLINE_S = 60.0

Start = Callable[[], "Control"]


class Control:
    """A control plane of ours.

    Args:
        data: Its data folder.
        log: What it says.

    Attributes:
        port: Where it listens.
    """

    def __init__(self, data: Path, log: Path) -> None:
        """See the class; starts it."""
        self._log = log
        self.port = port = free_port()
        settings = json.dumps({"data_dir": str(data), "port": port})
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "penstock.control", settings],
                stdout=output,
                stderr=output,
            )
        self.client = httpx.Client(
            base_url=f"http://127.0.0.1:{port}", timeout=START_DEADLINE_S, trust_env=False
        )

    def wait(self) -> None:
        """Return once it is ready."""
        deadline = time.monotonic() + START_DEADLINE_S
        while not self._is_ready():
            assert self.process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.05)

    def _is_ready(self) -> bool:
        try:
            return self.client.get("/health/ready").is_success
        except httpx.TransportError:
            return False

    def ship(self, data: Path, *numbers: int) -> dict[str, int]:
        """Send events as a node does and return the receipt."""
        token = (data / "secrets" / "node_token").read_text()
        answer = self.client.post(
            "/node/v1/usage",
            content=make_body(*(make_event(number) for number in numbers)),
            headers={"authorization": f"Bearer {token}"},
        )
        receipt: dict[str, int] = answer.raise_for_status().json()
        return receipt

    def stop(self, how: signal.Signals) -> int:
        """End the process and return its exit status."""
        self.client.close()
        self.process.send_signal(how)
        return self.process.wait(START_DEADLINE_S)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts control planes on one data folder, and ends them whatever happens."""
    started: list[Control] = []

    def start_one() -> Control:
        started.append(Control(tmp_path / "data", tmp_path / "log"))
        started[-1].wait()
        return started[-1]

    yield start_one
    for control in started:
        control.client.close()
        if control.process.poll() is None:
            control.process.kill()
            control.process.wait()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(start: Start, tmp_path: Path, how: signal.Signals) -> None:
    """A stop signal ends the process with status 0, no traceback and a whole database."""
    control = start()
    control.ship(tmp_path / "data", 1, 2)
    assert control.stop(how) == 0
    assert "Traceback" not in (tmp_path / "log").read_text()
    assert not (tmp_path / "data" / "usage.db-wal").exists()


def test_the_first_admin_token_is_told_by_its_place(start: Start, tmp_path: Path) -> None:
    """The start that makes the admin token logs where it is, once, and no start logs the token."""
    path = tmp_path / "data" / "secrets" / "admin_token"
    start().stop(signal.SIGTERM)
    control = start()
    token = path.read_text()
    headers = {"authorization": f"Bearer {token}"}
    assert control.client.get("/api/v1/organizations", headers=headers).status_code == 200
    log = (tmp_path / "log").read_text()
    assert log.count(f'"control.secret_made","process":"control","path":"{path}"') == 1
    assert token not in log


def test_what_has_a_receipt_survives_a_kill(start: Start, tmp_path: Path) -> None:
    """After kill -9 everything that had a receipt is there, and shipping it again counts once."""
    data = tmp_path / "data"
    control = start()
    assert control.ship(data, *range(300))["stored"] == 300
    control.stop(signal.SIGKILL)
    control = start()
    receipt = control.ship(data, *range(400))
    assert (receipt["stored"], receipt["duplicates"]) == (100, 300)


@pytest.mark.parametrize(
    ("path", "secret"),
    [
        ("/node/v1/usage", "node_token"),
        ("/node/v1/key-hashes", "node_token"),
        ("/api/v1/organizations", "admin_token"),
    ],
)
def test_who_leaves_amid_a_request_is_no_bug(
    start: Start, tmp_path: Path, path: str, secret: str
) -> None:
    """A node that is killed while it sends a body leaves no traceback in the log."""
    control = start()
    token = (tmp_path / "data" / "secrets" / secret).read_text()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: control\r\nauthorization: Bearer {token}\r\n"
        "content-type: application/json\r\ncontent-length: 100\r\nexpect: 100-continue\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", control.port), timeout=START_DEADLINE_S) as caller:
        caller.sendall(head.encode())
        assert caller.recv(65_536).startswith(b"HTTP/1.1 100 "), "its body is being waited for"
        caller.sendall(b"{")
    assert control.stop(signal.SIGTERM) == 0
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_secrets_stay_secret(start: Start, tmp_path: Path) -> None:
    """Tokens are made for their owner only, kept by the next start, and not in the log."""
    secrets = tmp_path / "data" / "secrets"
    control = start()
    tokens = [(secrets / name).read_text() for name in ("node_token", "admin_token")]
    control.client.get("/", params={"token": tokens[1]}, auth=("anybody", tokens[1]))
    control.client.get("/api/v1/usage", headers={"authorization": f"Bearer {tokens[0]}"})
    assert control.stop(signal.SIGTERM) == 0
    start()
    assert [(secrets / name).read_text() for name in ("node_token", "admin_token")] == tokens
    assert {path.stat().st_mode & 0o777 for path in secrets.iterdir()} == {0o600}
    log = (tmp_path / "log").read_text()
    assert not [token for token in tokens if token in log]


@pytest.mark.parametrize("arguments", [[], ["{}"], ["no json"], ['{"data_dir": "x", "no": 1}']])
def test_bad_settings_are_reported(arguments: list[str], caplog: pytest.LogCaptureFixture) -> None:
    """Settings that are none end the process with status 2 and a sentence."""
    status = main(arguments)
    assert status == 2
    assert "settings" in caplog.text
    assert "Traceback" not in caplog.text


def test_a_taken_port_ends_the_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A port that somebody else has ends the process with status 1 and the reason."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = json.dumps({"data_dir": str(tmp_path / "data"), "port": taken.getsockname()[1]})
        status = main([settings])
    assert status == 1
    assert "Address already in use" in caplog.text
    assert not (tmp_path / "data").exists()


def test_a_damaged_database_ends_the_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that is no database ends the process with status 1 and the database's own words."""
    (tmp_path / "usage.db").write_bytes(b"no database" * 1_000)
    status = main([json.dumps({"data_dir": str(tmp_path), "port": 0})])
    assert status == 1
    assert "file is not a database" in caplog.text
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize(
    "name", ["admin_token", "node_token", "pepper", "idempotency_secret", "audit_signing_key"]
)
@pytest.mark.parametrize("content", ["", "changeme", "Secret-Secret-Secret-Secret-12345", "0" * 64])
def test_a_weak_secret_ends_the_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, content: str
) -> None:
    """No secret that anybody could guess is started with: status 1, and which file it is."""
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / name).write_text(content)
    status = main([json.dumps({"data_dir": str(tmp_path), "port": 0})])
    assert status == 1
    assert str(tmp_path / "secrets" / name) in caplog.text
    assert not content or content not in caplog.text
    assert "Traceback" not in caplog.text
