"""What the agent and its workers use of the machine."""

from collections.abc import Iterator, Mapping

from penstock.contract.exposition import Family
from penstock.kit.processes import find_use
from penstock.node import metrics


def show_processes(pids: Mapping[str, int]) -> Iterator[Family]:
    """Yield what processes use, but for those that are gone.

    Args:
        pids: Their ids, by what they are called.
    """
    found = {(name,): find_use(pid) for name, pid in pids.items()}
    uses = {name: use for name, use in found.items() if use is not None}
    yield Family(
        metrics.PROCESS_MEMORY, {name: float(use.memory_bytes) for name, use in uses.items()}
    )
    yield Family(metrics.PROCESS_CPU, {name: use.cpu_s for name, use in uses.items()})
    yield Family(metrics.PROCESS_FILES, {name: float(use.open_files) for name, use in uses.items()})
