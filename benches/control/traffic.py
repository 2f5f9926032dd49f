"""Good traffic of another key, at about a steady rate, while changes are measured."""

import json
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.fakes.production import MODEL, Production

CONNECTIONS = 200
_ANSWER_MS = 5
"""About how long an answer takes, beside the pause before the next request."""
_SCRIPT = """\
wrk.method = "POST"
wrk.path = "/v1/chat/completions"
wrk.headers["authorization"] = "Bearer @KEY@"
wrk.headers["content-type"] = "application/json"
wrk.body = '{"model":"@MODEL@","messages":[{"role":"user","content":"Hello there"}]}'
function delay() return @PAUSE_MS@ end
done = function(summary, latency, requests)
  io.write(string.format('{"requests":%d,"micros":%d,"p99_us":%d,"bad":%d}\\n',
    summary.requests, summary.duration, latency:percentile(99),
    summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.write
    + summary.errors.timeout))
end
"""


class Traffic:
    """A context in which a key is used.

    Args:
        production: Whose workers.
        secret: The key.
        folder: Takes the client's script.
        per_second: About how many requests a second; the pause of each connection is chosen for
            it, so answers that take long make it less.
        seconds: For how long at most.
    """

    def __init__(
        self, production: Production, secret: str, folder: Path, *, per_second: int, seconds: int
    ) -> None:
        """See the class."""
        pause_ms = max(0, round(CONNECTIONS * 1_000 / per_second) - _ANSWER_MS)
        values = {"KEY": secret, "MODEL": MODEL, "PAUSE_MS": str(pause_ms)}
        text = _SCRIPT
        for name, value in values.items():
            text = text.replace(f"@{name}@", value)
        self._script = folder / "traffic.lua"
        self._script.write_text(text)
        self._command = [
            *("wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--timeout", "10s"),
            *("-s", str(self._script), production.url("api")),
        ]
        self.per_second = 0.0
        self.p99_ms = 0.0
        self.failed = 0
        """Answers that were not good."""

    def __enter__(self) -> Self:
        """Begin."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        time.sleep(1)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End, and read what was seen."""
        # The first signal has it end in order.
        self._process.send_signal(2)
        output, _ = self._process.communicate(timeout=30)
        seen = json.loads(output.splitlines()[-1])
        self.per_second = seen["requests"] * 1e6 / seen["micros"]
        self.p99_ms = seen["p99_us"] / 1e3
        self.failed = seen["bad"]
