"""What a running process can be asked about, for those who ask and load nothing else."""

from enum import StrEnum
from typing import Final

DEFAULT_ROWS: Final = 20
MAX_ROWS: Final = 200
MAX_TRACE_S: Final = 30.0


class Topic(StrEnum):
    """What every process can be asked about."""

    TASKS = "tasks"
    THREADS = "threads"
    GC = "gc"
    MEMORY = "memory"
    SETTINGS = "settings"
    CONNECTIONS = "connections"
