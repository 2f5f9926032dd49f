"""How hard tests look: as much as fits into each change, more when somebody asks for it."""

import os

EFFORT = float(os.environ.get("EFFORT", "0.5"))
"""How many of the examples and seeds that a test names are tried: `make test EFFORT=4`."""


def tries(number: int) -> int:
    """Return how many of that many examples or seeds are tried, at least one."""
    return max(1, round(number * EFFORT))
