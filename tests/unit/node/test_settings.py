"""What an agent is started with."""

import json
from pathlib import Path

import pytest

from penstock.node.errors import AgentError
from penstock.node.settings import decode_settings

LEAST = {"data_path": "d", "control_url": "http://127.0.0.1:8081"}


def test_paths_are_made_absolute() -> None:
    """Relative paths are relative to where the agent was started."""
    settings = decode_settings(json.dumps(LEAST))
    assert settings.data_path == str(Path.cwd() / "d")
    assert settings.metrics_host == "127.0.0.1"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"wrokers": 1}, "wrokers"),
        ({"workers": 0}, "workers"),
        ({"workers": "2"}, "workers"),
        ({"port": 65_536}, "port"),
        ({"control_url": "127.0.0.1:8081"}, "control_url"),
        ({"data_path": ""}, "data_path"),
        ({"drain_grace_s": -1}, "drain_grace_s"),
        ({"tls_cert": "x.pem"}, "tls_key"),
        ({"engine_load_s": 0.001}, "engine_load_s"),
        ({"limits_url": "http://redis:6379"}, "limits_url"),
        ({"limits_password": "hunter2"}, "limits_password"),
    ],
)
def test_wrong_settings_are_named(change: dict[str, object], named: str) -> None:
    """The message names the member that is wrong."""
    with pytest.raises(AgentError, match=named):
        decode_settings(json.dumps(LEAST | change))
