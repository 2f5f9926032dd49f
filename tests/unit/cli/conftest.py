"""A control plane in memory for every test of this folder that wants one."""

from collections.abc import Iterator

import pytest
from tests.fakes.control_api import FakeControl, running_control


@pytest.fixture
def plane() -> Iterator[FakeControl]:
    """An empty control plane."""
    with running_control() as server:
        yield server
