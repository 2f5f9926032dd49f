"""The YAML that is read: places, duplicates, and what is refused."""

import pytest

from penstock.catalog.document import MAX_VALUES, format_path, read_document
from penstock.catalog.errors import Mark, PlatformFileError


def refusal(text: str) -> str:
    """Return why a text is refused."""
    with pytest.raises(PlatformFileError) as caught:
        read_document(text, "f")
    return str(caught.value)


def test_values_have_their_place() -> None:
    """Each value knows the line and column where it is written."""
    root, findings = read_document("a:\n  - {b: text}\n", "f")
    assert findings == []
    assert root.find_mark(("a", 0, "b")) == Mark(2, 9)
    assert root.find_mark(("a", 0, "missing")) == Mark(2, 5)
    assert root.key_marks["a"] == Mark(1, 1)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("no", "no"),
        ("on", "on"),
        ("1:30", "1:30"),
        ("010", "010"),
        ("0x10", "0x10"),
        ("2030-01-31", "2030-01-31"),
        ("1_000", "1_000"),
        ("12", 12),
        ("-3", -3),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("", None),
        ("'12'", "12"),
        ('"null"', "null"),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_scalars_mean_what_yaml_1_2_says(written: str, meant: object) -> None:
    """Only true, false, null and decimal numbers are anything else than text."""
    root, _ = read_document(f"a: {written}", "f")
    assert root.plain() == {"a": meant}
    assert type(root.plain()["a"]) is type(meant)


def test_repeated_fields_are_found_wherever_they_are() -> None:
    """A field that is written twice in one mapping is a finding with both lines."""
    root, findings = read_document("a: {b: 1,\n b: 2}\nc: {b: 3}\n", "f")
    assert [str(finding) for finding in findings] == [
        "f:2:2: a.b: is there a second time, first on line 1; remove one of the two"
    ]
    assert root.plain() == {"a": {"b": 1}, "c": {"b": 3}}


def test_aliases_stand_for_their_anchor() -> None:
    """An alias is replaced by what its anchor holds."""
    root, _ = read_document("a: &x {t: 1}\nb: [*x, *x]\n", "f")
    assert root.plain() == {"a": {"t": 1}, "b": [{"t": 1}, {"t": 1}]}


def test_alias_bombs_are_refused() -> None:
    """Aliases that multiply to more values than any honest file has are refused at once."""
    levels = [f"l0: &l0 [{','.join('x' * 10)}]"]
    levels += [f"l{n}: &l{n} [{','.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 9)]
    assert f"more than {MAX_VALUES} values" in refusal("\n".join(levels))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [", "is no valid YAML"),
        ("a: b: c", "f:1:5: file: is no valid YAML: mapping values are not allowed"),
        ("a:\n\t- b", "f:2:1: file: is no valid YAML"),
        ("a: &x [*x]", 'f:1:8: file: no value before this one has the anchor "x"'),
        ("a: é\nb: \x01", "f:2:4: file: holds the character U+0001; remove it"),
        ("a: !!python/object:os.system x", "f:1:4: file: YAML tags are not used here"),
        ("a: !secret x", "YAML tags are not used here"),
        ("a: 1\n---\nb: 2", "f:2:1: file: a second document begins"),
        ("? [a]\n: 1", "a field's name is no text"),
        ("? *x\n: 1", "no value before this one"),
        ("a: " + "[" * 100_000, "is nested more than 16 deep"),
        ("a: " + "{b: " * 100_000, "is nested more than 16 deep"),
    ],
)
def test_what_is_no_plain_yaml_is_refused(text: str, expected: str) -> None:
    """Broken YAML and its dangerous parts are refused with their place."""
    assert expected in refusal(text)


def test_an_empty_file_is_nothing() -> None:
    """A file without a value reads as null."""
    assert read_document("# nothing\n", "f")[0].plain() is None


def test_paths_are_written_as_people_do() -> None:
    """A path shows fields with dots and positions in brackets."""
    assert format_path(("keys", 3, "aliases", 0)) == "keys[3].aliases[0]"
    assert format_path(()) == "file"
