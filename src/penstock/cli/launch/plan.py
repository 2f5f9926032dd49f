"""Turns options into the configuration to serve from and the facts to tell."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from penstock import __version__
from penstock.catalog.compile import resolve_secrets
from penstock.catalog.errors import PlatformFileError
from penstock.catalog.model import PlatformFile
from penstock.catalog.platform_file import check_platform_file
from penstock.catalog.rules import list_endpoints
from penstock.cli.config import CONFIG_FILE
from penstock.cli.errors import BAD_CONFIG, BAD_OPTION, DATA_UNUSABLE, CommandError
from penstock.cli.instance import Facts, find_facts
from penstock.cli.launch import builtin, config_file, engine_urls, ports
from penstock.cli.launch.builtin import Engine
from penstock.cli.launch.config_file import Serving
from penstock.cli.launch.data import DataFolder
from penstock.cli.launch.options import DevOptions
from penstock.cli.launch.reporter import Reporter
from penstock.cli.times import format_time
from penstock.kit.clock import Clock
from penstock.kit.secrets import resolve_secret

_LOCAL_HOSTS = frozenset({ports.HOST, "localhost"})
PORT_OPTIONS = ("--gateway-port", "--control-port", "--metrics-port")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that is decided before the first process starts."""

    options: DevOptions
    """With ports in place of zeros."""
    ports: Mapping[str, int]
    """Port by the option that sets it."""
    config: Path
    engines: tuple[tuple[Engine, int], ...]
    """Engines to start, each with its port."""
    facts: Facts


def make_plan(
    options: DevOptions, folder: DataFolder, reporter: Reporter, clock: Clock, pid: int
) -> Plan:
    """Decide what to start; writes secrets and our own configuration into the data folder.

    Args:
        options: What was asked for.
        folder: The data folder, locked.
        reporter: Told what is odd.
        clock: Says when.
        pid: Our process id, for `dev.json`.

    Raises:
        CommandError: A port is taken, an engine does not answer, the configuration is not valid.
    """
    api_key, admin_token = folder.prepare_secrets(options.api_key)
    before = find_facts(folder.path)
    chosen = choose_ports(options)
    ports.require_free(chosen)
    config = options.config or folder.path / CONFIG_FILE
    if options.config is None and _is_ours(config):
        engines = _write_config(options, folder, before, chosen, reporter)
        platform = load(config, folder)
    else:
        platform = load(config, folder)
        engines = _engines_of_own_config(options, config, platform, before)
        api_key = _key_of_own_config(options, folder, config, platform, api_key)
    gateway_port, control_port, metrics_port = (chosen[option] for option in PORT_OPTIONS)
    facts = Facts(
        base_url=f"http://{ports.HOST}:{gateway_port}",
        control_url=f"http://{ports.HOST}:{control_port}",
        metrics_url=f"http://{ports.HOST}:{metrics_port}",
        api_key=api_key,
        admin_token=admin_token,
        data_dir=str(folder.path),
        pid=pid,
        models=tuple(alias.item.name for alias in platform.aliases),
        engines={engine.name: f"http://{ports.HOST}:{port}" for engine, port in engines},
        config=str(config.absolute()),
        version=__version__,
        started_at=format_time(datetime.fromtimestamp(clock.wall_ns() / 1e9, UTC)),
    )
    return Plan(options=options, ports=chosen, config=config, engines=engines, facts=facts)


def choose_ports(options: DevOptions) -> dict[str, int]:
    """Return the port by its option; a zero becomes a free one, and what is not wanted has none."""
    wanted = (options.gateway_port, options.control_port, options.metrics_port)
    chosen = {} if options.grpc_port is None else {"--grpc-port": options.grpc_port}
    for option, port in zip(PORT_OPTIONS, wanted, strict=True):
        chosen[option] = port or ports.pick_free((), {*wanted, *chosen.values()})
    return chosen


def load(config: Path, folder: DataFolder) -> PlatformFile:
    """Return what the configuration says.

    Raises:
        CommandError: It is not valid; the message has every finding.
    """
    try:
        return check_platform_file(config)
    except PlatformFileError as error:
        remedy = f"Correct it, then run `penstock config check {config}`."
        if config == folder.path / CONFIG_FILE:
            remedy += " Or delete the file: `penstock dev` writes a new one."
        raise CommandError(BAD_CONFIG, f"{config} is not valid:\n{error}", remedy) from None


def _is_ours(config: Path) -> bool:
    try:
        return config_file.is_ours(config)
    except OSError as error:
        detail = f"{config} cannot be read: {error.strerror}."
        raise CommandError(DATA_UNUSABLE, detail) from None


def _write_config(
    options: DevOptions,
    folder: DataFolder,
    before: Facts | None,
    chosen: Mapping[str, int],
    reporter: Reporter,
) -> tuple[tuple[Engine, int], ...]:
    engines: tuple[tuple[Engine, int], ...] = ()
    if options.engines:
        urls = tuple(dict.fromkeys(engine_urls.normalize(url) for url in options.engines))
        models = options.models or _models_of_all(urls)
        servings = [
            Serving(name="engine", provider="openai_compatible", endpoints=urls, models=models)
        ]
    else:
        wanted = builtin.choose(options.models, reporter.warn)
        remembered = before.engines if before is not None else {}
        assigned = builtin.assign_ports(wanted, remembered, chosen.values())
        engines = tuple((engine, assigned[engine.name]) for engine in wanted)
        servings = [engine.serving(port) for engine, port in engines]
    folder.write(CONFIG_FILE, config_file.render(servings).encode(), mode=0o600)
    return engines


def _models_of_all(urls: tuple[str, ...]) -> tuple[str, ...]:
    # They are one upstream, so any of them may get any request: all must serve the model.
    listed = [engine_urls.list_models(url) for url in urls]
    shared = tuple(name for name in listed[0] if all(name in names for names in listed))
    if not shared:
        detail = "The engines have no model in common, and a request may go to any of them."
        remedy = "Give engines of the same models, or write a configuration for --config."
        raise CommandError(BAD_OPTION, detail, remedy)
    return shared


def _engines_of_own_config(
    options: DevOptions, config: Path, platform: PlatformFile, before: Facts | None
) -> tuple[tuple[Engine, int], ...]:
    if options.engines or options.models:
        detail = f"{config} is your own configuration, so --engine and --model do not apply."
        remedy = "Add the engine to the file, or delete the file to have a new one written."
        raise CommandError(BAD_OPTION, detail, remedy)
    endpoints = list_endpoints(url for each in platform.upstreams for url in each.item.endpoints)
    wanted = {endpoint.port for endpoint in endpoints if endpoint.host in _LOCAL_HOSTS}
    remembered = before.engines if before is not None else {}
    usual = [(engine, builtin.usual_port(engine, remembered)) for engine in builtin.ENGINES]
    # Those that the user took out of the file are not wanted any more.
    started = [(engine, port) for engine, port in usual if port in wanted and engine.is_installed]
    ports.require_free({f"the {engine.name}'s": port for engine, port in started})
    for _, port in started:
        # Whoever chooses among free ports leaves it alone from here on.
        ports.claim(port)
    return tuple(started)


def _key_of_own_config(
    options: DevOptions, folder: DataFolder, config: Path, platform: PlatformFile, api_key: str
) -> str:
    """Return a key that works with the user's own configuration."""
    secrets = resolve_secrets(platform, resolve_secret)[0]
    keys = [secret for (section, _), secret in secrets.items() if section == "keys"]
    if api_key in keys:
        return api_key
    if options.api_key is not None:
        detail = f"{config} has no key with the secret of --api-key."
        path = folder.path / "secrets" / "dev_api_key"
        remedy = f"Add a key with `secret: file:{path}` to it, or leave --api-key out."
        raise CommandError(BAD_OPTION, detail, remedy)
    if not keys:
        remedy = "Add a key to it; nobody could call."
        raise CommandError(BAD_CONFIG, f"{config} has no key with a secret.", remedy)
    return keys[0]
