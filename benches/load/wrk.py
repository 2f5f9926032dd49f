"""The client for plain requests: `wrk`, with a script that we generate."""

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from benches.load.payloads import PATH, Request

INSTALL = "apt-get install wrk"

_SCRIPT = """\
wrk.method = "POST"
wrk.path = "{path}"
local file = assert(io.open("{body_file}", "rb"))
wrk.body = file:read("*a")
file:close()
{headers}
done = function(summary, latency, requests)
  io.write("{{" .. figures(summary, latency) .. "}}\\n")
end
"""
_FIGURES = """\
function figures(summary, latency)
  return string.format(
    '"requests":%d,"micros":%d,"p50_us":%d,"p99_us":%d,"bad_status":%d,"broken":%d',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    summary.errors.status,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout)
end
"""


Found = TypeVar("Found")


class ClientError(Exception):
    """The client could not do its work; the figures of this step do not exist."""


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk saw in one go."""

    requests: int
    """Answers, whatever their status."""
    micros: int
    """How long it took."""
    p50_us: int
    p99_us: int
    bad_status: int
    """Answers outside 2xx and 3xx."""
    broken: int
    """Failed connects, reads and writes, and requests without an answer in time."""

    @property
    def per_second(self) -> float:
        """Good answers a second."""
        return (self.requests - self.bad_status) * 1e6 / self.micros


def is_installed() -> bool:
    """Return whether wrk is there."""
    return shutil.which("wrk") is not None


def run_wrk(port: int, request: Request, *, connections: int, seconds: float, folder: Path) -> Load:
    """Send one request over and over on `connections` connections, as fast as answers come.

    Args:
        port: Port of 127.0.0.1.
        request: What to send.
        connections: Each has one request in flight.
        seconds: How long; wrk wants whole seconds, so it is rounded up.
        folder: Takes the generated script.

    Raises:
        ClientError: wrk failed or hung.
    """
    body_file = folder / "wrk-body"
    body_file.write_text(request.body)
    headers = "\n".join(f'wrk.headers["{k}"] = "{v}"' for k, v in request.headers.items())
    text = _SCRIPT.format(path=PATH, body_file=body_file, headers=headers)
    return run_script(port, text, Load, connections=connections, seconds=seconds, folder=folder)


def run_script(
    port: int, text: str, kind: type[Found], *, connections: int, seconds: float, folder: Path
) -> Found:
    """Run wrk with a script that prints what it found as an object, in its last line with a brace.

    Args:
        port: Port of 127.0.0.1.
        text: The script. `figures(summary, latency)` gives it the members of a `Load`.
        kind: What the object is.
        connections: Each has one request in flight.
        seconds: How long; wrk wants whole seconds, so it is rounded up.
        folder: Takes the script.

    Raises:
        ClientError: wrk failed or hung.
    """
    script = folder / "wrk.lua"
    script.write_text(_FIGURES + text)
    whole_seconds = max(1, round(seconds + 0.49))
    command = ["wrk", "-t1", f"-c{connections}", f"-d{whole_seconds}s", "--timeout", "10s"]
    command += ["-s", str(script), f"http://127.0.0.1:{port}{PATH}"]
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, timeout=whole_seconds + 20, check=True
        )
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError) as error:
        message = f"wrk failed: {error} {error.stderr!r}"
        raise ClientError(message) from error
    lines = [line for line in answer.stdout.splitlines() if line.startswith("{")]
    if not lines:
        message = f"wrk printed no figures: {answer.stdout!r}"
        raise ClientError(message)
    return kind(**json.loads(lines[-1]))
