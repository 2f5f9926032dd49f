"""Where an operation is on its way: pure, no clock."""

from penstock.catalog.operations.model import (
    CLAIM_WITHIN_S,
    REPORT_WITHIN_S,
    EngineOperation,
    Status,
)


def status_of(operation: EngineOperation, now_us: int) -> Status:
    """Return how far an operation is.

    What is lost may have been done: a node took it and never said what came of it. What is expired
    was surely not.
    """
    if operation.finished_at_us is not None:
        return "done"
    if operation.claimed_at_us is not None:
        is_late = now_us >= operation.claimed_at_us + REPORT_WITHIN_S * 1_000_000
        return "lost" if is_late else "running"
    return "waiting" if now_us < operation.created_at_us + CLAIM_WITHIN_S * 1_000_000 else "expired"
