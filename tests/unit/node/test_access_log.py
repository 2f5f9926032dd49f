"""The access log's writing: what comes too fast or cannot be written is counted, and bounded."""

import asyncio
import json
import os
import re
import resource
import threading
import time
from collections import deque
from pathlib import Path

import msgspec
import pytest
from tests.fakes.agent_process import until
from tests.fakes.fake_worker import make_event, make_open

from penstock.contract.finished import Course, finished_request
from penstock.node import access_log
from penstock.node.access_log import AccessLog

OK = msgspec.structs.replace(
    finished_request(make_event(make_open("e-1")), Course(), 0), request_id="r-1"
)
REFUSED = msgspec.structs.replace(OK, request_id="r-2", outcome="refused", status=429)
LEFT = msgspec.structs.replace(OK, request_id="r-3", outcome="caller_gone")
HOSTILE = 'a\nb\u2028\x1b[31m\x7f"}'
KEY = "ps_live_4mJ0wq8ZtK1c_CANARY"


def _log(path: Path, which: access_log.Which = "all", *, is_text: bool = False) -> AccessLog:
    return AccessLog(which, str(path), "n-1", "text" if is_text else "auto")


def test_errors_are_what_was_refused_failed_or_left(tmp_path: Path) -> None:
    """With `errors` a request that went well has no line."""
    log = _log(tmp_path / "log", "errors")
    log.take([OK, REFUSED, LEFT, OK])
    log.write()
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [line["request_id"] for line in lines] == ["r-2", "r-3"]


@pytest.mark.parametrize("is_text", [False, True])
def test_a_line_is_one_line(tmp_path: Path, *, is_text: bool) -> None:
    """Whatever callers and engines call things, a line is one, and holds no key."""
    log = _log(tmp_path / "log", is_text=is_text)
    names = dict.fromkeys(("model", "served_model"), HOSTILE)
    ids = dict.fromkeys(("request_id", "upstream_request_id"), f"{HOSTILE} {KEY}")
    log.take([msgspec.structs.replace(OK, **names, **ids)] * 2)
    log.write()
    text = (tmp_path / "log").read_bytes().decode("ascii")
    assert len(re.split("[\n\r\x0b\x0c\x1c-\x1e]", text)) == 3
    assert all(line.isprintable() for line in text.split("\n"))
    if not is_text:
        assert json.loads(text.split("\n")[0])["model"].startswith("a\nb\u2028")
    assert "CANARY" not in text


def test_what_comes_too_fast_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The queue has a bound; what is beyond is missing, and said to be."""
    monkeypatch.setattr(access_log, "MAX_WAITING", 3)
    log = _log(tmp_path / "log")
    log.take([OK] * 2)
    log.take([OK] * 5)
    log.write()
    assert log.dropped == 4
    assert (tmp_path / "log").read_text().count("\n") == 3


def test_a_disk_that_says_no_costs_lines_only(tmp_path: Path) -> None:
    """A file that cannot be written is tried again with the next lines."""
    log = _log(tmp_path / "folder" / "log")
    log.take([OK])
    log.write()
    assert log.dropped == 1
    (tmp_path / "folder").mkdir()
    log.take([OK])
    log.write()
    assert (tmp_path / "folder" / "log").read_text().count("\n") == 1


def test_a_line_that_a_full_disk_tore_spoils_no_other(tmp_path: Path) -> None:
    """What fits of a line when space ends is a line of its own; those written later are whole."""
    path = tmp_path / "log"
    log = _log(path)
    log.take([OK, OK])
    log.write()
    whole = path.stat().st_size
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    log.take([OK, OK])
    resource.setrlimit(resource.RLIMIT_FSIZE, (whole + 10, usual[1]))
    try:
        assert not log.write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert (path.stat().st_size, log.dropped) == (whole + 10, 2)
    log.take([REFUSED])
    log.write()
    *before, torn, last = path.read_text().splitlines()
    assert len(before) == 2
    assert before[0].startswith(torn)
    assert json.loads(last)["request_id"] == "r-2"


def test_a_file_that_was_moved_away_is_made_anew(tmp_path: Path) -> None:
    """Who rotates moves the file: the next lines are in a new one, for its owner alone."""
    log, path = _log(tmp_path / "log"), tmp_path / "log"
    for name in ("log.1", "log.2"):
        log.take([OK])
        log.write()
        path.rename(tmp_path / name)
    assert [(tmp_path / name).read_text().count("\n") for name in ("log.1", "log.2")] == [1, 1]
    assert (tmp_path / "log.1").stat().st_mode & 0o777 == 0o600


async def test_a_reader_that_hangs_stops_nothing(tmp_path: Path) -> None:
    """A pipe that nobody reads costs lines: neither the loop nor the end waits for it."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    log = _log(pipe)
    running = asyncio.create_task(log.run())
    for _ in range(70):
        log.take([OK] * 1_000)
    # Those beyond the bound, and what the pipe did not take.
    await until(lambda: log.dropped > 20_900, "lines are given up")
    running.cancel()
    async with asyncio.timeout(30):
        await asyncio.wait([running])
    assert running.cancelled()
    taken = os.read(reader, 2**20)
    assert taken.endswith(b"\n")
    assert all(json.loads(line)["request_id"] == "r-1" for line in taken.splitlines())
    os.close(reader)


async def test_the_end_comes_behind_what_is_being_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who ends the log while a thread writes neither writes beside it nor leaves it behind."""
    monkeypatch.setattr(access_log, "_AT_ONCE", 1)
    write_all, is_writing = access_log._write_all, threading.Event()

    def write_slowly(file: int, lines: deque[bytes]) -> None:
        if not is_writing.is_set():
            is_writing.set()
            time.sleep(0.3)
        write_all(file, lines)

    monkeypatch.setattr(access_log, "_write_all", write_slowly)
    log = _log(tmp_path / "log")
    running = asyncio.create_task(log.run())
    log.take([OK, REFUSED, LEFT])
    await until(is_writing.is_set, "the first line is being written")
    running.cancel()
    await asyncio.wait([running])
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [line["request_id"] for line in lines] == ["r-1", "r-2", "r-3"]
