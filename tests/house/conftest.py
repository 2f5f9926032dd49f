"""What house tests look at that takes seconds to make."""

from typing import Any

import pytest

from penstock.control.app import create_app
from penstock.control.settings import ControlSettings


@pytest.fixture(scope="session")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The OpenAPI document of the control plane; nobody changes it."""
    folder = tmp_path_factory.mktemp("control")
    return create_app(ControlSettings(data_dir=str(folder))).openapi()
