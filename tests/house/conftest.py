"""What house tests look at that takes seconds to make."""

from typing import Any

import pytest
from tests.fakes.admin_rig import make_document


@pytest.fixture(scope="session")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The OpenAPI document of the control plane; nobody changes it."""
    return make_document(tmp_path_factory.mktemp("control"))
