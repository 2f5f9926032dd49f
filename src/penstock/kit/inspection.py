"""What a running process can say of itself, in little time and without any value of a variable.

Stacks are names and line numbers: no locals, no source, nothing that a caller sent. What takes
long is done in parts, with the loop's other work in between.
"""

import asyncio
import gc
import sys
import threading
import tracemalloc
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from types import FrameType
from typing import Any, Final, TypeAlias

from penstock.kit.inspection_topics import DEFAULT_ROWS, MAX_ROWS, MAX_TRACE_S, Topic
from penstock.kit.logs.redaction import REDACTED, redact
from penstock.kit.logs.values import is_secret_name

DEPTH: Final = 20
"""Frames of a stack that are shown, the innermost ones."""
NAME_CHARS: Final = 160
PATIENT_BLOCKS: Final = 5_000_000
HURRIED_BLOCKS: Final = 250_000
"""Blocks of memory in use, above which objects are not counted: Python lists them all at once, for
10 ms with so many, and no request goes on meanwhile."""
_TRACED_PART: Final = 100
"""Tracing ends early after a hundredth of so many blocks: to read them takes as long."""
_SLICE_S: Final = 0.002
_TRACE_LOOK_S: Final = 0.005
_TRACE_BYTES: Final = 58
"""What the tracer itself keeps of a block."""
_STACKS: Final = 5_000
_EXAMPLES: Final = 3

Found: TypeAlias = dict[str, Any]


class InspectionError(Exception):
    """It cannot be answered; the words say why, for whoever asked."""


@dataclass(frozen=True, slots=True)
class Question:
    """What somebody wants to know of a process."""

    topic: str
    rows: int = DEFAULT_ROWS
    """The most rows of a list, 1..MAX_ROWS."""
    trace_s: float = 0.0
    """How long to trace allocations, 0..MAX_TRACE_S; of `memory` only."""


Look: TypeAlias = Callable[[Question], Awaitable[Found]]


class Breaks:
    """Lets the loop do its other work between parts of something long."""

    def __init__(self, now_s: Callable[[], float] = perf_counter) -> None:
        """Begin now."""
        self._now_s = now_s
        self._since_s = now_s()

    async def take(self) -> None:
        """Go on at once, or after a turn of the loop when the last one is long ago."""
        if self._now_s() - self._since_s > _SLICE_S:
            await asyncio.sleep(0)
            self._since_s = self._now_s()


class Inspector:
    """Answers questions about this process, one at a time.

    Args:
        settings: What it was started with.
        connections: Returns whom it is connected with, and what it does for them.
        most_blocks: How many blocks of memory may be looked at in one go.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        connections: Look,
        *,
        most_blocks: int = PATIENT_BLOCKS,
    ) -> None:
        """See the class."""
        self._settings = settings
        self._most_blocks = most_blocks
        self._topics: dict[str, Look] = {
            Topic.TASKS: list_tasks,
            Topic.THREADS: list_threads,
            Topic.GC: self._count_objects,
            Topic.MEMORY: self._measure_memory,
            Topic.SETTINGS: self._show_settings,
            Topic.CONNECTIONS: connections,
        }
        self._is_busy = False

    async def answer(self, question: Question) -> Found:
        """Return what is found.

        Raises:
            InspectionError: There is no such topic, a figure is out of range, or another question
                is being answered.
        """
        topic = self._topics.get(question.topic)
        if topic is None:
            message = f"there are {', '.join(Topic)}"
            raise InspectionError(message)
        if not 1 <= question.rows <= MAX_ROWS or not 0 <= question.trace_s <= MAX_TRACE_S:
            message = f"rows are 1 to {MAX_ROWS}, trace_s 0 to {MAX_TRACE_S:g}"
            raise InspectionError(message)
        if self._is_busy:
            message = "another question is being answered"
            raise InspectionError(message)
        self._is_busy = True
        try:
            return await topic(question)
        finally:
            self._is_busy = False

    async def _count_objects(self, question: Question) -> Found:
        return await count_objects(question, self._most_blocks)

    async def _measure_memory(self, question: Question) -> Found:
        return await measure_memory(question, self._most_blocks // _TRACED_PART)

    async def _show_settings(self, _question: Question) -> Found:
        return {name: show_setting(name, value) for name, value in self._settings.items()}


async def list_tasks(question: Question) -> Found:
    """Return the loop's tasks, those that wait at the same place together, most first."""
    tasks = asyncio.all_tasks()
    breaks = Breaks()
    places: dict[tuple[str, ...], list[str]] = {}
    for seen, task in enumerate(tasks):
        if seen == _STACKS:
            break
        places.setdefault(_stack_of(task.get_coro()), []).append(task.get_name()[:NAME_CHARS])
        await breaks.take()
    most = sorted(places.items(), key=lambda place: -len(place[1]))[: question.rows]
    rows = [
        {"count": len(names), "names": sorted(names)[:_EXAMPLES], "stack": stack}
        for stack, names in most
    ]
    return {"count": len(tasks), "tasks": rows}


async def list_threads(question: Question) -> Found:
    """Return the threads, and where each is just now, innermost frame first."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    frames = sys._current_frames()  # noqa: SLF001 - the documented way
    rows = [
        {"name": names.get(number, "?")[:NAME_CHARS], "stack": _frames(frame)}
        for number, frame in list(frames.items())[: question.rows]
    ]
    return {"count": len(frames), "threads": rows}


async def count_objects(question: Question, most_blocks: int) -> Found:
    """Return how many objects of which type there are, those that are most.

    Args:
        question: How many rows.
        most_blocks: Blocks of memory in use, above which it is refused.

    Raises:
        InspectionError: There are so many that the loop would stand still.
    """
    blocks = sys.getallocatedblocks() - gc.get_freeze_count()
    if blocks > most_blocks:
        message = (
            f"{blocks} blocks of memory are in use, {most_blocks} at most are looked at: to list "
            "their objects would stop the process for too long"
        )
        raise InspectionError(message)
    counts: Counter[type] = Counter()
    breaks = Breaks()
    objects = gc.get_objects()
    for start in range(0, len(objects), 1_000):
        counts.update(map(type, objects[start : start + 1_000]))
        await breaks.take()
    rows = [
        {"type": f"{kind.__module__}.{kind.__qualname__}"[:NAME_CHARS], "count": count}
        for kind, count in counts.most_common(question.rows)
    ]
    return {
        "count": len(objects),
        "frozen": gc.get_freeze_count(),
        "generations": gc.get_stats(),
        "types": rows,
    }


async def measure_memory(question: Question, most_traced: int) -> Found:
    """Return what memory is used, and with `trace_s` what is allocated in so long and kept.

    Tracing makes allocation two to four times as expensive. It ends early when `most_traced` blocks
    are kept, always when the question is cancelled, and is not begun where somebody else traces.
    """
    found: Found = {
        **_resident(),
        "allocated_blocks": sys.getallocatedblocks(),
        "frozen_objects": gc.get_freeze_count(),
    }
    if question.trace_s:
        found |= await _trace(question, most_traced)
    return found


async def _trace(question: Question, most_traced: int) -> Found:
    if tracemalloc.is_tracing():
        message = "memory is traced already, by PYTHONTRACEMALLOC or -X tracemalloc"
        raise InspectionError(message)
    begun_s = perf_counter()
    tracemalloc.start()
    try:
        before = tracemalloc.get_tracemalloc_memory()
        passed_s = 0.0
        is_full = False
        while passed_s < question.trace_s and not is_full:
            await asyncio.sleep(min(_TRACE_LOOK_S, question.trace_s - passed_s))
            passed_s = perf_counter() - begun_s
            kept = tracemalloc.get_tracemalloc_memory() - before
            is_full = kept > most_traced * _TRACE_BYTES
        snapshot = tracemalloc.take_snapshot()
    finally:
        tracemalloc.stop()
    sizes: Counter[tuple[str, int]] = Counter()
    breaks = Breaks()
    for trace in snapshot.traces:
        frame = trace.traceback[0]
        sizes[frame.filename, frame.lineno] += trace.size
        await breaks.take()
    rows = [
        {"place": f"{_short(name)}:{line}", "size_bytes": size}
        for (name, line), size in sizes.most_common(question.rows)
    ]
    return {"traced_s": round(passed_s, 3), "is_cut": is_full, "places": rows}


def show_setting(name: str, value: Any) -> Any:
    """Return a setting as it may be shown: as in the log, but for references to secrets.

    Settings name secrets by reference and hold none; this is for those that somebody got wrong.

    >>> show_setting("nats_url", "nats://me:hunter2@host:4222"), show_setting("token", "hunter2")
    ('nats://me:[redacted]@host:4222', '[redacted]')
    >>> show_setting("kafka", {"password": "env:KAFKA_PASSWORD"})
    {'password': 'env:KAFKA_PASSWORD'}
    """
    if isinstance(value, dict):
        return {inner: show_setting(inner, each) for inner, each in value.items()}
    if isinstance(value, list | tuple):
        return [show_setting(name, each) for each in value]
    if not isinstance(value, str):
        return value
    if is_secret_name(name) and not value.startswith(("env:", "file:")):
        return REDACTED
    return redact(value)


def _resident() -> dict[str, int]:
    fields = dict(
        line.split(":", 1) for line in Path("/proc/self/status").read_text("ascii").splitlines()
    )
    return {
        "resident_bytes": int(fields["VmRSS"].split()[0]) * 1024,
        "peak_resident_bytes": int(fields["VmHWM"].split()[0]) * 1024,
    }


def _stack_of(coroutine: Any) -> tuple[str, ...]:
    """Return where a coroutine waits, innermost first: what it awaits, and what that awaits."""
    places: list[str] = []
    while coroutine is not None and len(places) < 2 * DEPTH:
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
        places.append(type(coroutine).__name__ if frame is None else _place(frame))
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "gi_yieldfrom", None)
    return tuple(reversed(places))[:DEPTH]


def _frames(frame: FrameType | None) -> list[str]:
    places: list[str] = []
    while frame is not None and len(places) < DEPTH:
        places.append(_place(frame))
        frame = frame.f_back
    return places


def _place(frame: FrameType) -> str:
    module = str(frame.f_globals.get("__name__", "?"))
    return f"{module}.{frame.f_code.co_qualname}:{frame.f_lineno}"[-NAME_CHARS:]


def _short(path: str) -> str:
    """Return the end of a file's path: where Python is installed is no news.

    >>> _short("/usr/lib/python3/site-packages/penstock/gateway/till.py")
    'penstock/gateway/till.py'
    """
    return "/".join(Path(path).parts[-3:])[-NAME_CHARS:]
