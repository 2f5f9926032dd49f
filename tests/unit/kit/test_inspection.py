"""What a process says of itself: bounded, in parts, and without values."""

import asyncio
import gc
import json
import tracemalloc

import pytest

from penstock.kit import inspection
from penstock.kit.inspection import Found, InspectionError, Inspector, Question

SETTINGS = {"host": "127.0.0.1", "database": "env:DSN", "limits_url": "redis://me:hunter2@h:1/0"}


async def no_connections(_question: Question) -> Found:
    """Return nothing."""
    return {"connections": 0}


@pytest.fixture
def inspector() -> Inspector:
    """Return one of this process."""
    return Inspector(SETTINGS, no_connections)


async def wait_with_secret(event: asyncio.Event) -> None:
    """Wait, with something in a local variable that nobody must see."""
    secret = "canary-4711"
    await event.wait()
    assert secret


async def until_traced() -> None:
    """Wait until memory is traced: tracing does not end before the loop turns again."""
    async with asyncio.timeout(20):
        while not tracemalloc.is_tracing():  # noqa: ASYNC110 - nobody would tell
            await asyncio.sleep(0)


async def test_tasks_at_one_place_are_one_row(inspector: Inspector) -> None:
    """Tasks are counted by where they wait, innermost first, and no local variable is shown."""
    event = asyncio.Event()
    tasks = [asyncio.create_task(wait_with_secret(event), name=f"wait {n}") for n in range(30)]
    await asyncio.sleep(0)
    found = await inspector.answer(Question("tasks", rows=1))
    (row,) = found["tasks"]
    assert (found["count"], row["count"], len(row["names"])) == (31, 30, 3)
    places = [place.rpartition(":")[0].rpartition(".")[2] for place in row["stack"]]
    assert places.index("wait") < places.index("wait_with_secret")
    assert "canary" not in json.dumps(found)
    event.set()
    await asyncio.gather(*tasks)


async def test_threads_have_names_and_stacks(inspector: Inspector) -> None:
    """The main thread is there, with the frame that asked."""
    found = await inspector.answer(Question("threads", rows=200))
    main = next(row for row in found["threads"] if row["name"] == "MainThread")
    assert main["stack"][0].startswith("penstock.kit.inspection.list_threads:")
    assert len(main["stack"]) <= inspection.DEPTH


class Marked:
    """Something to be counted."""


async def test_objects_are_counted_by_type(inspector: Inspector) -> None:
    """The types that are most are listed, with how many there are."""
    kept = [Marked() for _ in range(7)]
    found = await inspector.answer(Question("gc", rows=200))
    counts = [row["count"] for row in found["types"]]
    assert counts == sorted(counts, reverse=True)
    assert len(counts) <= 200
    marked = sum(type(each) is Marked for each in gc.get_objects())
    assert marked == len(kept)


async def test_too_many_objects_are_not_listed() -> None:
    """A process that must not stand still does not count what it cannot count in time."""
    hurried = Inspector(SETTINGS, no_connections, most_blocks=10)
    with pytest.raises(InspectionError, match="blocks of memory are in use"):
        await hurried.answer(Question("gc"))


async def test_memory_is_traced_for_a_while_and_then_no_more(inspector: Inspector) -> None:
    """What is allocated meanwhile and kept is told by its place; tracing has ended."""
    asking = asyncio.create_task(inspector.answer(Question("memory", rows=200, trace_s=0.2)))
    await until_traced()
    kept = [bytearray(1_000) for _ in range(100)]
    found = await asking
    here = [row for row in found["places"] if "kit/test_inspection.py" in row["place"]]
    assert here[0]["size_bytes"] > 100 * 1_000
    assert found["resident_bytes"] <= found["peak_resident_bytes"]
    assert not tracemalloc.is_tracing()
    assert len(kept) == 100


async def test_tracing_ends_early_and_when_nobody_waits() -> None:
    """Much that is allocated ends it, and so does a question that is taken back."""
    hurried = Inspector(SETTINGS, no_connections, most_blocks=10_000)
    asking = asyncio.create_task(hurried.answer(Question("memory", trace_s=30)))
    await until_traced()
    kept = [bytearray(10) for _ in range(1_000)]
    assert (await asking)["is_cut"]
    asking = asyncio.create_task(hurried.answer(Question("memory", trace_s=30)))
    await until_traced()
    with pytest.raises(InspectionError, match="another question"):
        await hurried.answer(Question("tasks"))
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert not tracemalloc.is_tracing()
    assert len(kept) == 1_000
    assert await hurried.answer(Question("connections")) == {"connections": 0}


async def test_settings_are_shown_without_passwords(inspector: Inspector) -> None:
    """References are shown, and a password that should not be there is not."""
    found = await inspector.answer(Question("settings"))
    assert found == {**SETTINGS, "limits_url": "redis://me:[redacted]@h:1/0"}


@pytest.mark.parametrize(
    "question",
    [
        Question("locals"),
        Question("tasks", rows=0),
        Question("tasks", rows=201),
        Question("memory", trace_s=-1),
        Question("memory", trace_s=31),
        Question("memory", trace_s=float("nan")),
    ],
)
async def test_what_is_out_of_range_is_not_answered(
    inspector: Inspector, question: Question
) -> None:
    """An unknown topic and figures without bounds are refused."""
    with pytest.raises(InspectionError):
        await inspector.answer(question)


async def test_long_work_lets_others_run() -> None:
    """Between parts of something long the loop does its other work."""
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    now_s = 0.0

    def read_clock() -> float:
        nonlocal now_s
        now_s += 0.001
        return now_s

    other = asyncio.create_task(count_turns())
    breaks = inspection.Breaks(read_clock)
    for _ in range(30):
        await breaks.take()
    other.cancel()
    assert turns >= 8
