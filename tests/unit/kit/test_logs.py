"""Log lines: one an event whatever it holds, without secrets, and few of what repeats itself."""

import io
import json
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fakes.own_log import kept_logging

from penstock.kit.clock import ManualClock
from penstock.kit.logs import setup
from penstock.kit.logs.event import Event, Level, know_request
from penstock.kit.logs.redaction import redact
from penstock.kit.logs.repeats import INTERVAL_S, MAX_KINDS, MOST, Repeats
from penstock.kit.logs.setup import Form, Handler, get_level, set_level

HAPPENED = Event("kit.something_happened", Level.WARNING, "For these tests.")
DETAIL = Event("kit.detail", Level.DEBUG, "For these tests.")
ENDS_OF_LINES = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
HOSTILE = (
    "a\nb",
    "\x1b[31mred\x1b[0m\r",
    "\u2028\u2029\x85",
    "\ud800",
    "x" * 1_000_000,
    '"}\n{"',
    "\0",
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


class Rig(NamedTuple):
    """A log of its own."""

    stream: io.StringIO
    handler: Handler
    clock: ManualClock

    @property
    def lines(self) -> list[str]:
        """What was written, by what anybody may take for the end of a line."""
        return re.split(f"[{ENDS_OF_LINES}]", self.stream.getvalue())[:-1]

    @property
    def told(self) -> list[dict[str, object]]:
        """The lines, as JSON."""
        return [json.loads(line) for line in self.lines]


@pytest.fixture
def make() -> Iterator[Callable[[Form], Rig]]:
    """Return what makes the log of this process another one, until the test's end."""
    rigs: list[Rig] = []

    def make(form: Form, stream: io.StringIO | None = None) -> Rig:
        clock = ManualClock()
        stream = stream or io.StringIO()
        rigs.append(Rig(stream, Handler(stream, form, "test", Repeats(clock.monotonic_s)), clock))
        root.handlers[:] = [rigs[-1].handler]
        set_level("info")
        return rigs[-1]

    with kept_logging() as root:
        yield make
    know_request()


def test_a_line_says_when_what_and_by_whom(make: Callable[[Form], Rig]) -> None:
    """Each line is an object with time, level, event, process and the event's fields."""
    rig = make("json")
    setup.know(node="n1", slot=3)
    HAPPENED.log(count=2, path=Path("/data"), error=ValueError("no"), why=TimeoutError())
    (line,) = rig.told
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", str(line.pop("ts")))
    assert line == {
        "level": "warning",
        "event": "kit.something_happened",
        "process": "test",
        "node": "n1",
        "slot": 3,
        "count": 2,
        "path": "/data",
        "error": "no",
        "why": "TimeoutError",
    }


@pytest.mark.parametrize("form", ["json", "text"])
@pytest.mark.parametrize("value", HOSTILE)
def test_whatever_it_holds_it_is_one_line(
    make: Callable[[Form], Rig], form: Form, value: str
) -> None:
    """What a field holds ends no line, moves no cursor, and is cut where it is long."""
    rig = make(form)
    HAPPENED.log(value=value, values=[value, {value: value}])
    logging.getLogger("library").warning("says %s", value)
    assert len(rig.lines) == 2
    for line in rig.lines:
        assert line.isprintable()
        assert len(line) < 40_000
    if form == "json":
        assert len(rig.told) == 2


@given(value=VALUES)
def test_anything_is_one_json_object(value: object) -> None:
    """Every value that can be said is one line of JSON that any reader takes."""
    stream = io.StringIO()
    handler = Handler(stream, "json", "test", Repeats(ManualClock().monotonic_s))
    record = logging.LogRecord("x", logging.INFO, "", 0, "%s", (value,), None)
    handler.handle(record)
    (line,) = stream.getvalue().splitlines()
    assert line.isascii()
    json.loads(line, parse_constant=pytest.fail)


class Token(NamedTuple):
    """What holds a secret."""

    token: str


def test_only_what_is_plain_is_shown(make: Callable[[Form], Rig]) -> None:
    """An object that may hold a secret shows as the name of its type, wherever it is."""
    rig = make("json")
    holder: object = Token("hunter2-hunter2")
    HAPPENED.log(
        holder=holder,  # type: ignore[arg-type]
        within=[{"a": holder}],  # type: ignore[dict-item]
        password="hunter2",
        settings={"sasl": {"user_password": "hunter2"}},
    )
    (line,) = rig.told
    assert (line["holder"], line["within"]) == ("<Token>", [{"a": "<Token>"}])
    assert line["password"] == "[redacted]"
    assert line["settings"] == {"sasl": {"user_password": "[redacted]"}}
    assert "hunter2" not in rig.stream.getvalue()


SECRETS = {
    "Invalid key ps_live_4mJ0wq8ZtK1c_CANARYCANARYCANARY": "ps_live_",
    "ps_test_CANARY": "ps_test_",
    "Authorization: Bearer CANARYCANARY": "Bearer ",
    "{'authorization': 'CANARYCANARY'}": "authorization",
    "x-api-key: CANARYCANARY": "x-api-key",
    "sk-proj-CANARYCANARY": "sk-",
    "cannot reach postgresql://penstock:CANARY@db/books": "@db/books",
    "redis://:CAN@ARY@cache:6379/0": "@cache",
    "password=CANARY host=db": "host=db",
    'refused {"client_secret": "CANARY"}': "refused",
    "token eyJhbGciOiJI.CANARY.CANARY": "eyJ",
    "AKIACANARYCANARYCANA is unknown": "is unknown",
    "hvs.CANARYCANARY": "hvs.",
    "sk-CANARYCANARY": "sk-",
    "ghp-CANARYCANARY": "ghp",
    "eyJhbGciOiJI.CANARYCANARY": "eyJ",
    "basic\tCANARYCANARY": "basic",
    "-----BEGIN PRIVATE KEY-----\nCANARY\n-----END PRIVATE KEY-----": "BEGIN",
}


@pytest.mark.parametrize(("text", "kept"), SECRETS.items())
def test_what_looks_like_a_secret_is_not_logged(
    make: Callable[[Form], Rig], text: str, kept: str
) -> None:
    """The last net: keys, tokens and passwords in texts are taken out, in either form."""
    for form in ("json", "text"):
        rig = make(form)
        HAPPENED.log(error=ValueError(text))
        logging.getLogger("library").warning("%s", text)
        HAPPENED.log(bug=RuntimeError(text))
        assert len(rig.lines) >= 3
        assert kept in rig.stream.getvalue()
        assert not re.search("CANARY|ARY@", rig.stream.getvalue())


def test_no_part_of_a_secret_is_left_at_a_cut(make: Callable[[Form], Rig]) -> None:
    """A secret that a cut goes through is gone as a whole."""
    rig = make("json")
    for length in range(3_950, 4_100, 10):
        HAPPENED.log(slot=length, text="x" * length + " postgresql://u:" + "CANARY" * 20 + "@db")
    assert len(rig.lines) == 15
    assert "CANARY" not in rig.stream.getvalue()


@pytest.mark.parametrize(
    "text", ["max_tokens=5", "token bucket: full", "http://127.0.0.1:8000/v1?a=b", "basic usage"]
)
def test_what_is_no_secret_stays(text: str) -> None:
    """Words that only sound like it are left as they are."""
    assert redact(text) == text


def test_repeats_are_summed_up(make: Callable[[Form], Rig]) -> None:
    """Of many lines of one kind an interval has so many, and then the last one with a number."""
    rig = make("json")
    for number in range(MOST + 123):
        HAPPENED.log(slot=0, number=number)
    HAPPENED.log(slot=1, number=-1)
    assert len(rig.lines) == MOST + 1
    rig.clock.advance(INTERVAL_S - 1)
    setup.tell_repeats()
    assert len(rig.lines) == MOST + 1
    rig.clock.advance(1)
    setup.tell_repeats()
    assert (rig.told[-1]["number"], rig.told[-1]["suppressed"]) == (MOST + 122, 122)
    HAPPENED.log(slot=0, number=7)
    assert (rig.told[-1]["number"], "suppressed" in rig.told[-1]) == (7, False)
    assert len(rig.lines) == MOST + 3


def test_what_is_due_is_told_before_the_next_line_and_at_the_end(
    make: Callable[[Form], Rig],
) -> None:
    """Nothing has to ask: the next line brings what is due, and so does the end."""
    rig = make("json")
    for _ in range(MOST + 2):
        HAPPENED.log()
    rig.clock.advance(INTERVAL_S)
    logging.getLogger("library").warning("next")
    assert [line.get("suppressed") for line in rig.told[-2:]] == [1, None]
    for _ in range(MOST + 5):
        HAPPENED.log()
    setup.tell_repeats(is_end=True)
    assert rig.told[-1]["suppressed"] == 4


def test_kinds_are_bounded_and_none_is_lost(make: Callable[[Form], Rig]) -> None:
    """However many kinds there are, memory holds a thousand; what was left out is told before."""
    rig = make("json")
    for number in range(MOST + 7):
        HAPPENED.log(number=number)
    for number in range(MAX_KINDS + 500):
        logging.getLogger("library").info(f"message {number}")  # noqa: G004 - a kind of its own
        assert len(rig.handler._repeats._kinds) <= MAX_KINDS
    (last,) = [line for line in rig.told if "suppressed" in line]
    assert (last["number"], last["suppressed"]) == (MOST + 6, 6)


def test_a_traceback_is_told_once(make: Callable[[Form], Rig]) -> None:
    """The same traceback is in the first line only; the others have its id."""
    rig = make("json")
    for _ in range(2):
        try:
            _ = 1 // 0
        except ZeroDivisionError as error:
            HAPPENED.log(bug=error)
    first, second = rig.told
    assert "1 // 0" in str(first["traceback"])
    assert "traceback" not in second
    assert first["traceback_id"] == second["traceback_id"]
    assert (second["bug"], second["why"]) == (
        "ZeroDivisionError",
        "integer division or modulo by zero",
    )


def test_a_request_is_in_each_line_of_it(make: Callable[[Form], Rig]) -> None:
    """What is known of the request that is served is said by every event of it."""
    rig = make("json")
    know_request(request_id="r-1")
    HAPPENED.log(count=1)
    assert rig.told[0]["request_id"] == "r-1"


def test_levels_change_while_it_runs(make: Callable[[Form], Rig]) -> None:
    """A level counts from now on; libraries never say what is below info."""
    rig = make("json")
    DETAIL.log()
    set_level("debug")
    DETAIL.log()
    logging.getLogger("library").debug("headers and parameters")
    assert get_level() == "debug"
    set_level("error")
    HAPPENED.log()
    assert [line["event"] for line in rig.told] == ["kit.detail"]


class Terminal(io.StringIO):
    """What people look at."""

    def isatty(self) -> bool:
        """Say so."""
        return True


def test_people_see_text_and_only_terminals_see_colours(make: Callable[..., Rig]) -> None:
    """`auto` is text on a terminal, and JSON elsewhere; in files `text` has no colours."""
    rig = make("auto", Terminal())
    HAPPENED.log(count=1)
    assert re.fullmatch(
        r"\S+Z \x1b\[33mWARNING \x1b\[0m something happened count=1\n", rig.stream.getvalue()
    )
    rig = make("text")
    HAPPENED.log(count=1, why="a b")
    assert rig.lines[0].endswith('Z WARNING  something happened count=1 why="a b"')
    rig = make("auto")
    HAPPENED.log()
    assert rig.told[0]["event"] == "kit.something_happened"
