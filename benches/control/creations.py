"""How many keys a second a control plane creates, over HTTP and from several clients."""

import json
import re
import secrets
import subprocess
from dataclasses import dataclass
from pathlib import Path

from benches.control.weighing import cpu_s
from tests.fakes.production import Production

_SCRIPT = """\
local count, prefix = 0, "@PREFIX@-"
wrk.method = "POST"
function request()
  count = count + 1
  local name = prefix .. count
  local headers = {["authorization"] = "@TOKEN@", ["content-type"] = "application/json"}
  if @IS_REPEATABLE@ then headers["idempotency-key"] = name end
  return wrk.format("POST", "/api/v1/keys", headers,
    '{"project_id":"@PROJECT@","name":"' .. name .. '"}')
end
done = function(summary, latency, requests)
  io.write(string.format('{"requests":%d,"micros":%d,"p50_us":%d,"p99_us":%d,"bad":%d}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.write
    + summary.errors.timeout))
end
"""


@dataclass(frozen=True, slots=True)
class Creations:
    """What a round showed."""

    per_second: float
    p50_ms: float
    p99_ms: float
    control_ms: float
    """Processor time of the control plane for each."""
    failed: int


def create_keys(
    production: Production, project: str, folder: Path, *, seconds: int, is_repeatable: bool
) -> Creations:
    """Create keys as fast as answers come, on 16 connections.

    Args:
        production: What is measured.
        project: Where the keys are put.
        folder: Takes the client's script.
        seconds: How long.
        is_repeatable: Whether each request has an idempotency key, as the command line's have.
    """
    values = {
        "PREFIX": secrets.token_hex(6),
        "TOKEN": production.admin_headers["authorization"],
        "IS_REPEATABLE": str(is_repeatable).lower(),
        "PROJECT": project,
    }
    script = folder / "creations.lua"
    script.write_text(re.sub("@([A-Z_]+)@", lambda match: values[match[1]], _SCRIPT))
    control = production.processes["control"].pid
    before_s = cpu_s(control)
    answer = subprocess.run(
        [
            *("wrk", "-t1", "-c16", f"-d{seconds}s", "--timeout", "20s"),
            *("-s", str(script), production.url("control")),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    seen = json.loads(answer.stdout.splitlines()[-1])
    good = seen["requests"] - seen["bad"]
    return Creations(
        per_second=good * 1e6 / seen["micros"],
        p50_ms=seen["p50_us"] / 1e3,
        p99_ms=seen["p99_us"] / 1e3,
        control_ms=(cpu_s(control) - before_s) * 1e3 / max(1, good),
        failed=seen["bad"],
    )
