"""Logs stay short, and their end can be shown."""

from pathlib import Path

from penstock.cli.launch import logs


def test_a_long_log_is_moved_at_the_next_start(tmp_path: Path) -> None:
    """A log over the bound becomes `.1` at the next start, in place of the one before."""
    path = tmp_path / "logs" / "agent.log"
    with logs.open_log(path) as log:
        log.write(b"x" * (logs.ROTATE_BYTES + 1))
    with logs.open_log(path) as log:
        log.write(b"new")
    assert path.read_bytes() == b"new"
    assert path.with_name("agent.log.1").stat().st_size == logs.ROTATE_BYTES + 1
    assert path.stat().st_mode & 0o077 == 0


def test_a_short_log_goes_on(tmp_path: Path) -> None:
    """A log under the bound is added to."""
    path = tmp_path / "agent.log"
    for word in (b"one\n", b"two\n"):
        with logs.open_log(path) as log:
            log.write(word)
    assert path.read_bytes() == b"one\ntwo\n"


def test_a_log_in_use_is_cut(tmp_path: Path) -> None:
    """A log that grows too long while its process runs keeps its end aside and goes on short."""
    path = tmp_path / "agent.log"
    with logs.open_log(path) as log:
        log.write(b"a" * 50 + b"b" * 50)
        assert not logs.shorten_running(path, limit_bytes=100)
        log.write(b"c")
        assert logs.shorten_running(path, limit_bytes=100)
        log.write(b"later")
    assert path.read_bytes() == b"later"
    assert path.with_name("agent.log.1").read_bytes().endswith(b"bbc")
    assert not logs.shorten_running(tmp_path / "absent")


def test_the_end_of_a_log(tmp_path: Path) -> None:
    """The last lines behind an offset are returned, and none for a log that is not there."""
    path = tmp_path / "agent.log"
    path.write_text("".join(f"line {number}\n" for number in range(100)))
    assert logs.tail(path, lines=2) == "line 98\nline 99"
    assert logs.tail(path, offset=path.stat().st_size - 8) == "line 99"
    assert logs.tail(path, offset=10_000) == ""
    assert logs.tail(tmp_path / "absent") == ""
