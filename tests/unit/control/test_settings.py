"""Settings of the control plane."""

from pathlib import Path

import msgspec
import pytest

from penstock.control.settings import ControlSettings


def test_settings_name_their_files() -> None:
    """Everything that the control plane keeps is below the data folder."""
    settings = msgspec.json.decode(b'{"data_dir": "data"}', type=ControlSettings)
    assert settings.database_path == Path("data/usage.db")
    assert settings.node_token_path == Path("data/secrets/node_token")
    assert settings.admin_token_path == Path("data/secrets/admin_token")
    assert (settings.host, settings.port) == ("127.0.0.1", 8081)


def test_unknown_settings_are_refused() -> None:
    """A typing error in a setting does not pass for its default."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"data_dir": "data", "prot": 1}', type=ControlSettings)
