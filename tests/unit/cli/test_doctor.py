"""`penstock doctor`: what is wrong is found, and what to do is said."""

import json
import resource
import socket
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from penstock.cli.checks import folder, machine, running
from penstock.cli.checks.model import Finding, Verdict
from penstock.cli.instance import Facts
from penstock.cli.main import app
from penstock.kit.clock import ManualClock

FACTS = Facts(
    base_url="http://gateway",
    control_url="http://control",
    metrics_url="http://metrics",
    api_key="the-key",
    admin_token="token",
    data_dir="data",
)


def verdicts(findings: list[Finding]) -> dict[str, str]:
    """Return the verdict of each check."""
    return {finding.check: finding.verdict.value for finding in findings}


def test_old_python_fails() -> None:
    """A Python before 3.11 is a failure, 3.11 is not."""
    assert machine.check_python((3, 10)).verdict is Verdict.FAILED
    assert machine.check_python((3, 11)).verdict is Verdict.OK


def test_another_system_fails() -> None:
    """Anything but Linux is a failure with a reason."""
    assert machine.check_platform("darwin").verdict is Verdict.FAILED
    assert machine.check_platform("linux").verdict is Verdict.OK


@pytest.mark.parametrize(
    ("installed", "verdict"),
    [("0.9", "failed"), ("1.2.0", "ok"), ("1.10", "ok"), ("1.2rc1", "ok"), ("1.1.9", "failed")],
)
def test_dependencies_are_compared_by_number(installed: str, verdict: str) -> None:
    """A version is older when its numbers are smaller, not when its text is."""
    lines = ["thing[extra]>=1.2 ; python_version > '3'", "other>=99 ; extra == 'x'"]
    assert machine.check_dependencies(lines, lambda _: installed).verdict == verdict


def test_our_own_dependencies_are_met() -> None:
    """What is installed here is as recent as we ask for."""
    assert machine.check_dependencies().verdict is Verdict.OK


@pytest.mark.parametrize(
    ("limits", "verdict"),
    [
        ((512, 4096), "failed"),
        ((1024, 4096), "note"),
        ((65_536, 65_536), "ok"),
        ((65_536, resource.RLIM_INFINITY), "ok"),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), "ok"),
    ],
)
def test_open_file_limits(limits: tuple[int, int], verdict: str) -> None:
    """Too few open files fail, few are a note."""
    assert machine.check_open_files(limits).verdict == verdict


def test_disk_space(tmp_path: Path) -> None:
    """A full disk fails, also for a folder that does not exist yet."""
    absent = tmp_path / "a" / "b"
    assert machine.check_disk(absent, 1).verdict is Verdict.FAILED
    assert machine.check_disk(absent, 10**9).verdict is Verdict.NOTE
    assert machine.check_disk(absent, 10**12).verdict is Verdict.OK


def test_clock(tmp_path: Path) -> None:
    """A clock before 2025, one that was set back, and one that jumps, are told apart."""
    clock = ManualClock()
    assert machine.check_clock(tmp_path, clock, clock.advance).verdict is Verdict.OK

    def jump(seconds: float) -> None:
        clock.advance(seconds)
        clock.now_ns += 10**9

    assert machine.check_clock(tmp_path, clock, jump).verdict is Verdict.NOTE
    (tmp_path / "file").touch()
    assert "set back" in machine.check_clock(tmp_path, clock, clock.advance).detail
    old = ManualClock(now_ns=10**18)
    assert machine.check_clock(tmp_path, old, old.advance).verdict is Verdict.FAILED


def test_exposed_secrets_fail(tmp_path: Path) -> None:
    """A secret that others can read fails, with the command that mends it."""
    secrets = tmp_path / "secrets"
    secrets.mkdir(mode=0o700)
    (secrets / "pepper").touch(mode=0o600)
    assert folder.check_permissions(tmp_path).verdict is Verdict.OK

    (secrets / "pepper").chmod(0o640)
    finding = folder.check_permissions(tmp_path)
    assert finding.verdict is Verdict.FAILED
    assert "secrets/pepper" in finding.detail
    assert "chmod" in finding.remedy
    assert folder.check_permissions(tmp_path / "absent").verdict is Verdict.SKIPPED


def test_a_wrong_configuration_fails(tmp_path: Path) -> None:
    """A configuration that is not valid fails with its first fault; an absent one is skipped."""
    path = tmp_path / "penstock.yaml"
    assert folder.check_config(path).verdict is Verdict.SKIPPED
    path.write_text("version: 2\n")
    finding = folder.check_config(path)
    assert finding.verdict is Verdict.FAILED
    assert f"{path}:1:" in finding.detail


def test_busy_ports_fail() -> None:
    """A port that is taken while nothing of ours runs fails, and its option is named."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        finding = running.check_ports({"--gateway-port": port})
    assert finding.verdict is Verdict.FAILED
    assert f"{port} (--gateway-port)" in finding.detail
    assert "--gateway-port PORT" in finding.remedy


class Instance:
    """An instance whose answers can be changed."""

    def __init__(self) -> None:
        """Start with all well."""
        self.metrics = "penstock_ship_lag_seconds 0.5\npenstock_journal_full 0\n"
        self.down: set[str] = set()
        self.models = ["emulated-70b"]

    def answer(self, request: httpx.Request) -> httpx.Response:
        """Answer as the part of that name would."""
        if request.url.host in self.down:
            message = "refused"
            raise httpx.ConnectError(message)
        match request.url.path:
            case "/v1/models" if request.headers["authorization"] != "Bearer the-key":
                return httpx.Response(401)
            case "/v1/models":
                return httpx.Response(200, json={"data": [{"id": name} for name in self.models]})
            case "/metrics":
                return httpx.Response(200, text=self.metrics)
        return httpx.Response(200)

    def check(self, facts: Facts = FACTS) -> list[Finding]:
        """Check it."""
        return running.check_instance(facts, httpx.MockTransport(self.answer))


def test_a_healthy_instance() -> None:
    """Every part of an instance that is well is checked and ok."""
    assert verdicts(Instance().check()) == {
        "Gateway": "ok",
        "Control": "ok",
        "Models": "ok",
        "Metrics": "ok",
        "Journal lag": "ok",
        "Endpoints": "ok",
        "Journal": "ok",
    }


def test_a_part_that_is_down_fails() -> None:
    """A part that does not answer fails and names its URL; the others are still checked."""
    instance = Instance()
    instance.down = {"control"}
    findings = instance.check()
    assert verdicts(findings)["Control"] == "failed"
    assert verdicts(findings)["Gateway"] == "ok"
    assert "http://control/health/ready" in findings[1].detail

    instance.down = {"gateway", "metrics"}
    assert verdicts(instance.check()) == {
        "Gateway": "failed",
        "Control": "ok",
        "Models": "failed",
        "Metrics": "failed",
    }


def test_a_key_that_is_not_accepted_fails() -> None:
    """When the key of dev.json is refused, the finding says so."""
    facts = Facts("http://gateway", "http://control", "http://metrics", "other", "t", "d")
    finding = Instance().check(facts)[2]
    assert finding.verdict is Verdict.FAILED
    assert "answers 401" in finding.detail


def test_a_journal_that_lags_fails() -> None:
    """Usage that does not get through for minutes fails, and so does a full journal."""
    instance = Instance()
    (finding,) = [finding for finding in instance.check() if finding.check == "Endpoints"]
    assert finding.detail == "none says that it cannot"
    instance.metrics = 'penstock_ship_lag_seconds 500\npenstock_journal_full{slot="0"} 1\n'
    findings = verdicts(instance.check())
    assert findings["Journal lag"] == "failed"
    assert findings["Journal"] == "failed"
    instance.metrics = (
        'penstock_endpoint_ready{endpoint="http://10.0.0.1:8000",upstream="gpu"} 0.0\n'
        'penstock_endpoint_ready{endpoint="http://10.0.0.2:8000",upstream="gpu"} 1.0\n'
    )
    (finding,) = [finding for finding in instance.check() if finding.check == "Endpoints"]
    assert (finding.verdict, "10.0.0.1" in finding.detail) == (Verdict.NOTE, True)
    assert "10.0.0.2" not in finding.detail
    instance.metrics = "penstock_ship_lag_seconds 60\n"
    assert verdicts(instance.check())["Journal lag"] == "note"


def test_sources_of_endpoints_that_are_silent_are_named() -> None:
    """Those that said something lately are not; without any source nothing is said."""
    instance = Instance()
    assert "Discovery" not in verdicts(instance.check())
    instance.metrics = 'penstock_discovery_age_seconds{source="dns://gpu:8000"} 7.5\n'
    assert verdicts(instance.check())["Discovery"] == "ok"
    instance.metrics += 'penstock_discovery_age_seconds{source="file:///gpu.json"} 500.0\n'
    (finding,) = [finding for finding in instance.check() if finding.check == "Discovery"]
    assert (finding.verdict, finding.detail) == (Verdict.NOTE, "silent: file:///gpu.json")


def test_the_command_prints_a_check_a_line(tmp_path: Path) -> None:
    """With --json each check is one object, and the exit code is 1 exactly when one failed."""
    result = CliRunner().invoke(app, ["doctor", "--json", "--data", str(tmp_path)])
    findings = [json.loads(line) for line in result.stdout.splitlines()]
    assert {"check", "verdict", "detail", "remedy"} == findings[0].keys()
    assert result.exit_code == int(any(finding["verdict"] == "failed" for finding in findings))

    (tmp_path / "secrets").mkdir(mode=0o755)
    result = CliRunner().invoke(app, ["doctor", "--data", str(tmp_path)])
    assert result.exit_code == 1
    assert "FAILED" in result.stdout
    assert "chmod" in result.stdout
