"""Files under version control: whole, and the same on every machine."""

import re
from pathlib import Path

from tests.house.sources import PACKAGE, expect_none, label, text, tracked_files

TEXT_SUFFIXES = {
    "", ".cfg", ".conf", ".css", ".html", ".ini", ".js", ".json", ".lua", ".md", ".py", ".sh",
    ".sql", ".toml", ".txt", ".yaml", ".yml",
}  # fmt: skip

PROMISE = re.compile(r"\b(?:TO" r"DO|FIX" r"ME|X" r"XX)\b")
REVISION = re.compile(r"^((?:down_)?revision) = (.*)$", re.MULTILINE)
ISSUE = re.compile(r"#\d+|issues?[ /]\d+")
ONE_MACHINE = re.compile(r"(?<![\w.~}])/(?:work|farm|root|home|Users|tmp/(?:studio|bash_jobs))/\w")


def _text_files() -> list[Path]:
    return [path for path in tracked_files() if path.suffix in TEXT_SUFFIXES]


def test_promises_have_an_issue() -> None:
    """No line puts something off without naming the issue that will do it."""
    loose = [
        f"{label(path, number)}: {line.strip()}"
        for path in _text_files()
        for number, line in enumerate(text(path).splitlines(), 1)
        if PROMISE.search(line) and not ISSUE.search(line)
    ]
    expect_none(loose)


def test_migrations_stand_in_one_line() -> None:
    """Each is numbered as its file is, without gaps or doubles, and follows the one before."""
    folder = PACKAGE / "storage" / "migrations" / "versions"
    pages = sorted(folder.glob("v*.py"))
    found = [(page.name[1:5], dict(REVISION.findall(text(page)))) for page in pages]
    expected: list[tuple[str, dict[str, str]]] = []
    for number in range(1, len(pages) + 1):
        before = f'"{number - 1:04}"' if expected else "None"
        revisions = {"revision": f'"{number:04}"', "down_revision": before}
        expected.append((f"{number:04}", revisions))
    assert found == expected


def test_no_file_names_a_path_of_one_machine() -> None:
    """No file under version control holds an absolute path that only one machine has."""
    found = [
        f"{label(path, number)}: {line.strip()[:100]}"
        for path in _text_files()
        for number, line in enumerate(text(path).splitlines(), 1)
        if ONE_MACHINE.search(line)
    ]
    expect_none(found)


def test_no_file_is_left_half_merged() -> None:
    """No file holds the marks of a merge that somebody did not finish."""
    mark = re.compile(r"^(?:<{7}|>{7}) ", re.MULTILINE)
    expect_none([label(path) for path in _text_files() if mark.search(text(path))])
