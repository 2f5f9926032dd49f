"""What `penstock dev` decides before it starts anything."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from penstock.cli.errors import CommandError
from penstock.cli.instance import Facts
from penstock.cli.launch import ports
from penstock.cli.launch.config_file import MARKER
from penstock.cli.launch.data import DataFolder
from penstock.cli.launch.options import DevOptions
from penstock.cli.launch.plan import Plan, make_plan
from penstock.kit.clock import ManualClock

OWN_CONFIG = """\
version: 1
organizations: [{{name: acme}}]
projects: [{{name: chat, organization: acme}}]
keys: [{{name: mine, project: chat, secret: "file:my-key"}}]
upstreams: [{{name: far, endpoints: ["http://127.0.0.1:{port}"]}}]
routes: [{{name: m, upstream: far, model: m}}]
aliases: [{{name: my-model, route: m}}]
"""


class Reporter:
    """Keeps warnings."""

    def __init__(self) -> None:
        """Start with none."""
        self.warnings: list[str] = []

    def progress(self, text: str) -> None:
        """Say nothing."""

    def warn(self, text: str) -> None:
        """Keep it."""
        self.warnings.append(text)

    def ready(self, facts: Facts) -> None:
        """Say nothing."""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[DataFolder]:
    """A data folder that is ours."""
    folder = DataFolder(tmp_path / "data")
    yield folder
    folder.close()


def plan(folder: DataFolder, **changes: Any) -> Plan:
    """Plan with free ports and the emulator alone, unless told otherwise."""
    wanted: dict[str, Any] = {
        "data": folder.path,
        "gateway_port": 0,
        "control_port": 0,
        "metrics_port": 0,
        "workers": 1,
        **changes,
    }
    if not {"engines", "models", "config"} & changes.keys():
        wanted["models"] = ("emulated-70b",)
    return make_plan(DevOptions(**wanted), folder, Reporter(), ManualClock(), pid=4711)


def read_config(plan: Plan) -> dict[str, Any]:
    """Return the configuration as data."""
    content: dict[str, Any] = yaml.safe_load(plan.config.read_text())
    return content


def test_first_start_writes_a_configuration_of_its_own(folder: DataFolder) -> None:
    """Without anything there, a marked and valid configuration is written and its model is told."""
    made = plan(folder)

    assert made.config == folder.path / "penstock.yaml"
    assert made.config.read_text().startswith(MARKER)
    config = read_config(made)
    ((engine, port),) = made.engines
    assert engine.name == "emulator"
    assert config["upstreams"] == [
        {
            "name": "emulator",
            "provider": "emulator",
            "endpoints": [f"http://127.0.0.1:{port}"],
            "forward_headers": ["x-emulator-*"],
        }
    ]
    assert config["aliases"] == [{"name": "emulated-70b", "route": "emulated-70b"}]
    assert made.facts.models == ("emulated-70b",)
    assert made.facts.api_key.startswith("ps_live_")
    assert made.facts.pid == 4711


def test_secrets_are_for_their_owner_only(folder: DataFolder) -> None:
    """Every secret, and dev.json, can be read by its owner alone."""
    folder.write_facts(plan(folder).facts)
    private = [*(folder.path / "secrets").iterdir(), folder.path / "dev.json"]
    assert {path.name for path in private} >= {"pepper", "node_token", "admin_token", "dev_api_key"}
    assert {path.stat().st_mode & 0o777 for path in private} == {0o600}


def test_a_second_start_keeps_key_token_and_engine_ports(folder: DataFolder) -> None:
    """Key, admin token and the engines' ports are the same at the next start."""
    first = plan(folder)
    folder.write_facts(first.facts)
    second = plan(folder)
    assert second.facts.api_key == first.facts.api_key
    assert second.facts.admin_token == first.facts.admin_token
    assert second.facts.engines == first.facts.engines


def test_another_api_key_replaces_ours(folder: DataFolder) -> None:
    """--api-key is used from then on, also by starts without it."""
    assert plan(folder, api_key="0123456789abcdef").facts.api_key == "0123456789abcdef"
    assert plan(folder).facts.api_key == "0123456789abcdef"


@pytest.mark.parametrize("key", ["short", "has a space in the middle", "ünïcödé-ünïcödé-1"])
def test_an_api_key_that_cannot_work_is_refused(folder: DataFolder, key: str) -> None:
    """A key that is too short, or that no header can carry, is wrong usage."""
    with pytest.raises(CommandError) as caught:
        plan(folder, api_key=key)
    assert caught.value.exit_code == 2


def test_engines_of_the_user_replace_ours(folder: DataFolder) -> None:
    """With --engine its URLs are endpoints of one upstream, and no engine of ours is started."""
    made = plan(
        folder,
        engines=("http://localhost:8000/v1", "http://[::1]:8001/"),
        models=("Qwen/Qwen3-8B", "b"),
    )
    assert made.engines == ()
    config = read_config(made)
    assert config["upstreams"] == [
        {
            "name": "engine",
            "provider": "openai_compatible",
            "endpoints": ["http://localhost:8000", "http://[::1]:8001"],
        }
    ]
    assert made.facts.models == ("Qwen/Qwen3-8B", "b")


def test_a_busy_port_is_found_before_anything_is_started(folder: DataFolder) -> None:
    """A taken port is an error of the plan, so nothing has been started yet."""
    with socket.create_server((ports.HOST, 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(CommandError, match=f"Port {port}"):
            plan(folder, control_port=port)
        with pytest.raises(CommandError, match=f"Port {port} .--grpc-port. is already in use"):
            plan(folder, grpc_port=port)
    with pytest.raises(CommandError, match="--grpc-port and --gateway-port are both"):
        plan(folder, grpc_port=port, gateway_port=port)


@pytest.mark.parametrize("option", ["labels", "metadata_labels"])
def test_a_label_that_cannot_be_is_wrong_usage(folder: DataFolder, option: str) -> None:
    """A name that no label can have is refused before anything starts, and said with its option."""
    with pytest.raises(CommandError, match="'a b' cannot be the name of a label") as caught:
        plan(folder, **{option: ("team", "a b")})
    assert caught.value.exit_code == 2


def test_a_configuration_of_the_user_is_left_alone(folder: DataFolder) -> None:
    """A penstock.yaml without our mark is served from as it is, with its own key."""
    config = folder.path / "penstock.yaml"
    config.write_text(OWN_CONFIG.format(port=1))
    (folder.path / "my-key").write_text("a-key-of-their-own")

    made = plan(folder, models=())
    assert config.read_text() == OWN_CONFIG.format(port=1)
    assert made.engines == ()
    assert made.facts.models == ("my-model",)
    assert made.facts.api_key == "a-key-of-their-own"

    with pytest.raises(CommandError, match="do not apply"):
        plan(folder, engines=("http://localhost:8000",), models=("m",))
    with pytest.raises(CommandError, match="no key with the secret of --api-key"):
        plan(folder, models=(), api_key="0123456789abcdef")


def test_a_configuration_of_the_user_can_use_our_engines(folder: DataFolder) -> None:
    """An engine of ours is started when the user's own file names the port that it had."""
    first = plan(folder)
    folder.write_facts(first.facts)
    ((_, port),) = first.engines
    (folder.path / "my-key").write_text("a-key-of-their-own")
    (folder.path / "penstock.yaml").write_text(OWN_CONFIG.format(port=port))

    assert [(engine.name, at) for engine, at in plan(folder, models=()).engines] == [
        ("emulator", port)
    ]


def test_a_configuration_elsewhere(folder: DataFolder, tmp_path: Path) -> None:
    """--config serves from that file, writes none, and excludes --engine."""
    config = tmp_path / "mine.yaml"
    config.write_text(OWN_CONFIG.format(port=1))
    (tmp_path / "my-key").write_text("a-key-of-their-own")

    assert plan(folder, config=config).config == config
    assert not (folder.path / "penstock.yaml").exists()
    with pytest.raises(CommandError, match="--config"):
        plan(folder, config=config, engines=("http://x",))


def test_a_wrong_configuration_names_its_lines(folder: DataFolder) -> None:
    """Everything that is wrong with the configuration is told, with line and remedy."""
    config = folder.path / "penstock.yaml"
    config.write_text("version: 1\nroutes: [{name: m, upstream: nowhere, model: m}]\n")
    with pytest.raises(CommandError) as caught:
        plan(folder, models=())
    assert f"{config}:2:" in str(caught.value)
    assert "penstock config check" in caught.value.remedy


def test_an_unknown_built_in_model_is_wrong_usage(folder: DataFolder) -> None:
    """--model without --engine must name a built-in model, and the error lists them."""
    with pytest.raises(CommandError) as caught:
        plan(folder, models=("gpt-9",))
    assert caught.value.exit_code == 2
    assert "emulated-70b" in caught.value.remedy


def test_one_dev_instance_a_folder(tmp_path: Path) -> None:
    """A second one on the same data folder is refused and told who runs, until the first ends."""
    first = DataFolder(tmp_path)
    with pytest.raises(CommandError, match=r"Another `penstock dev` \(process \d+\)") as caught:
        DataFolder(tmp_path)
    assert "--data" in caught.value.remedy
    first.close()
    DataFolder(tmp_path).close()


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    """A data folder below a file gives an error that names it."""
    (tmp_path / "file").touch()
    with pytest.raises(CommandError, match="cannot be used"):
        DataFolder(tmp_path / "file" / "data")


def test_facts_have_the_members_that_scripts_rely_on(folder: DataFolder) -> None:
    """dev.json has the members that the product promises."""
    folder.write_facts(plan(folder).facts)
    members = msgspec.json.decode((folder.path / "dev.json").read_bytes())
    promised = ("base_url", "control_url", "metrics_url", "api_key", "admin_token", "data_dir")
    assert set(promised) <= members.keys()
    assert members["data_dir"] == str(folder.path)
