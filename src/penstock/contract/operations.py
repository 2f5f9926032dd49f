"""Operations of engines between the control plane, which keeps them, and the nodes that do them."""

import msgspec

MAX_WAIT_S = 30.0
"""The longest that a node waits for an operation to be wanted."""
MAX_TEXT_CHARS = 1_000
"""Of what one endpoint answered."""
MAX_TEXTS_CHARS = 200_000
"""Of what all of them did: a report is no larger than what a control plane reads."""


class ClaimRequest(msgspec.Struct, frozen=True):
    """Node to control plane: what is there to be done?"""

    node_id: str
    wait_s: float = 0.0


class Claim(msgspec.Struct, frozen=True):
    """Control plane to node: this is for you, and for nobody else."""

    id: str
    upstream: str
    """Its name."""
    operation: str
    """One of those of its kind of server, see `penstock.engines`."""
    arguments: dict[str, str]
    endpoint: str | None
    """URL of the only endpoint that is meant; all of them when None."""


class Outcome(msgspec.Struct, frozen=True):
    """What one endpoint answered."""

    endpoint: str
    """Its URL."""
    status: int | None
    """HTTP status; None when there was no answer."""
    text: str = ""
    """The beginning of the answer's body, or why there is none."""


class OutcomeReport(msgspec.Struct, frozen=True):
    """Node to control plane: what came of it."""

    id: str
    node_id: str
    outcomes: tuple[Outcome, ...]
    fault: str = ""
    """Why nobody was asked; "" when somebody was."""
