"""Names that are bounded in number, and series."""

import pytest

from penstock.contract.metrics import REQUESTS, RETRIES
from penstock.contract.node import Sample
from penstock.contract.series import OTHER, Count, Names, SeriesBook, printable


def test_the_first_names_are_shown() -> None:
    """Half of the places are for whoever comes first."""
    names = Names(10)
    assert [names.shown(name) for name in "abcdef"] == [*"abcde", OTHER]
    assert names.shown("a") == "a"


def test_large_ones_are_shown_however_late_they_come() -> None:
    """A name with its share of the others' requests gets a place, many that come once do not."""
    names = Names(10)
    shown = [names.shown(f"once-{number}") for number in range(1_000)]
    assert shown.count(OTHER) == 995
    seen = [names.shown("large" if number % 5 == 0 else f"small-{number}") for number in range(200)]
    assert seen[0] == OTHER
    assert names.shown("large") == "large"
    assert names.shown("small-1") == OTHER


def test_never_more_than_were_asked_for() -> None:
    """When all places are taken, whoever comes is one of the others."""
    names = Names(4)
    shown = {names.shown(f"n{number // 100}") for number in range(5_000)}
    assert len(shown) == 5
    assert OTHER in shown


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gpt-4o", "gpt-4o"),
        ('a"b', 'a"b'),
        ("a\nb\x1b[31mc\u2028d\ud800", "a_b_[31mc_d_"),
        ("x" * 500, "x" * 128),
        ("Müller 模型", "Müller 模型"),
    ],
)
def test_names_do_nothing_to_terminals(name: str, expected: str) -> None:
    """Control characters, separators of lines and halves of surrogates are not shown."""
    assert printable(name) == expected


def test_a_book_has_each_series_once_and_tells_what_changed() -> None:
    """What changed is told once; more series than are allowed are one."""
    book = SeriesBook(most=2)
    book.add(RETRIES, "u", "timeout")
    book.add(RETRIES, "u", "timeout")
    (count,) = book.take_changed(10)
    assert isinstance(count, Count)
    assert count.sample() == Sample(RETRIES.name, ("u", "timeout"), 2)
    assert book.take_changed(10) == []
    for number in range(5):
        book.add(REQUESTS, f"o{number}", "m", "chat", "ok")
    told = [series.labels for series in book.take_changed(10)]
    assert told == [("o0", "m", "chat", "ok"), ("o1", "m", "chat", "ok"), (OTHER,) * 4]
    book.note_all()
    assert len(book.take_changed(3)) == 3
    assert len(book.take_changed(3)) == 1
