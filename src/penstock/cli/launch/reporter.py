"""What `penstock dev` says while it works: sentences for people, or one JSON object a line."""

import shlex
import shutil
import sys
from pathlib import Path
from typing import Any, Protocol

import msgspec

from penstock.cli.instance import DEFAULT_DATA, FACTS_FILE, Facts
from penstock.cli.output import console


class Reporter(Protocol):
    """Where `penstock dev` reports to. Never raises: a closed terminal stops no server."""

    def progress(self, text: str) -> None:
        """Say what is being done or was done."""
        ...

    def warn(self, text: str) -> None:
        """Say what is odd; the instance goes on."""
        ...

    def ready(self, facts: Facts) -> None:
        """Say that callers can come, and how."""
        ...


class TextReporter:
    """Reports to people, on stdout."""

    def __init__(self) -> None:
        """Colours only when stdout is a terminal."""
        self._console = console()

    def progress(self, text: str) -> None:
        """See `Reporter`."""
        self._say(text)

    def warn(self, text: str) -> None:
        """See `Reporter`."""
        self._say(f"Note: {text}", style="yellow")

    def ready(self, facts: Facts) -> None:
        """See `Reporter`."""
        self._say("")
        self._say("Penstock is ready.", style="bold green")
        for line in ready_lines(facts):
            self._say(line)

    def _say(self, text: str, style: str | None = None) -> None:
        try:
            self._console.print(text, style=style, markup=False)
        except (OSError, ValueError, SystemExit):
            # Nobody reads any more (a closed pipe or terminal); rich answers a broken pipe with
            # SystemExit, which would stop the servers.
            return


class JsonReporter:
    """Reports to programs: one object a line on stdout, each with a member `event`."""

    def progress(self, text: str) -> None:
        """See `Reporter`."""
        self._say({"event": "progress", "message": text})

    def warn(self, text: str) -> None:
        """See `Reporter`."""
        self._say({"event": "warning", "message": text})

    def ready(self, facts: Facts) -> None:
        """See `Reporter`; the object has the members of `dev.json`."""
        self._say({"event": "ready", **msgspec.to_builtins(facts)})

    def _say(self, event: dict[str, Any]) -> None:
        try:
            sys.stdout.write(msgspec.json.encode(event).decode() + "\n")
            sys.stdout.flush()
        except (OSError, ValueError):
            return


def curl_line(facts: Facts, model: str) -> str:
    """Return one line for a shell that streams a chat with the model."""
    body = {
        "model": model,
        "stream": True,
        "messages": [{"role": "user", "content": "Say hello in one sentence."}],
    }
    words = [
        "curl",
        "-N",
        f"{facts.base_url}/v1/chat/completions",
        "-H",
        f"Authorization: Bearer {facts.api_key}",
        "-H",
        "Content-Type: application/json",
        "-d",
        msgspec.json.encode(body).decode(),
    ]
    return shlex.join(words)


def ready_lines(facts: Facts) -> list[str]:
    """Return what a newcomer wants to know once everything runs."""
    folder = Path(facts.data_dir)
    is_default = folder == DEFAULT_DATA.absolute()
    data = "" if is_default else f" --data {shlex.quote(facts.data_dir)}"
    lines = [
        "",
        f"  API key   {facts.api_key}",
        f"  Base URL  {facts.base_url}/v1  (as an OpenAI client wants it)",
        f"  Models    {', '.join(facts.models) or 'none'}",
    ]
    if facts.models:
        lines += ["", "Try it:", "", f"  {curl_line(facts, facts.models[0])}"]
    where = [
        (f"{_our_name()} usage{data}", "who used how many tokens"),
        (f"{_our_name()} doctor{data}", "whether all is well"),
        (f"{facts.control_url}/", "the control plane's status page"),
        (f"{facts.metrics_url}/metrics", "metrics for Prometheus"),
        (facts.config, "the configuration"),
        (str(folder / FACTS_FILE), "these facts, for scripts"),
        (str(folder / "logs"), "what the processes say"),
    ]
    width = min(max(len(place) for place, _ in where), 60)
    lines += ["", "Where to look next:", ""]
    lines += [f"  {place:<{width}}  {what}" for place, what in where]
    return [*lines, "", "Ctrl-C stops it."]


def _our_name() -> str:
    # In a virtual environment that is not active, the bare name would not be found.
    if shutil.which("penstock"):
        return "penstock"
    beside = Path(sys.executable).with_name("penstock")
    try:
        return str(beside.relative_to(Path.cwd()))
    except ValueError:
        return str(beside)
