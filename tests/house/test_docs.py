"""Documentation: generated pages are current, links lead somewhere, rooms say what they own."""

import re
from pathlib import Path

import pytest
from docs.generate import PAGES, REFERENCE, error_codes, metrics
from tests.house.sources import (
    PACKAGE,
    ROOT,
    expect_none,
    label,
    python_files,
    text,
    tracked_files,
)

ROOMS = {
    "kit", "contract", "engines", "storage", "tenancy", "access", "catalog", "limits", "routing",
    "metering", "rating", "ledger", "billing", "webhooks", "audit", "privacy", "gateway",
    "node", "control", "console", "jobs", "emulator", "cli", "notices",
}  # fmt: skip

ROOM_HEADINGS = ("Owns", "Does not own", "Invariants")
ADR_HEADINGS = ("Context", "Decision", "Consequences", "Alternatives")

LINK = re.compile(r"\]\((?!https?://|mailto:|#)([^)#\s]+)")
NAMED_TEST = re.compile(r"`(test_\w+|Test\w+|(?:\w+/)*test_\w+\.py)`")
TEST = re.compile(r"^(?:async def|def|class)? ?(test_\w+|Test\w+)\b", re.MULTILINE)


def _headings(page: str) -> list[str]:
    return re.findall(r"^#+ (.+?)\s*$", page, re.MULTILINE)


@pytest.mark.parametrize("name", PAGES)
def test_generated_pages_are_current(name: str) -> None:
    """Each page of docs/reference says what the code says now (`make docs` writes it anew)."""
    assert text(REFERENCE / name) == PAGES[name]()


def test_every_error_code_is_documented() -> None:
    """Every error code has its entry in the reference."""
    page = text(REFERENCE / "errors.md")
    expect_none([error.code for error in error_codes() if f"### `{error.code}`" not in page])


def test_every_metric_is_documented() -> None:
    """Every metric has its line in the reference."""
    page = text(REFERENCE / "metrics.md")
    expect_none([metric.name for metric in metrics() if f"`{metric.name}`" not in page])


def test_rooms_are_those_of_the_plan() -> None:
    """Every folder of the package is a room that the plan knows."""
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders - ROOMS == set()


def test_rooms_say_what_they_own() -> None:
    """Every room has a README that says what it owns, what it does not, and what always holds."""
    silent = []
    for room in sorted(ROOMS):
        page = PACKAGE / room / "README.md"
        if not (PACKAGE / room / "__init__.py").exists():
            continue
        headings = _headings(text(page)) if page.exists() else []
        silent += [f"{label(page)}: {name}" for name in ROOM_HEADINGS if name not in headings]
    expect_none(silent)


def test_decisions_have_one_form() -> None:
    """Decisions are numbered without gaps and say context, decision, consequences, alternatives."""
    pages = sorted((ROOT / "docs" / "adr").glob("[0-9]*.md"))
    assert [page.name[:4] for page in pages] == [f"{n:04}" for n in range(len(pages))]
    silent = [
        f"{label(page)}: {name}"
        for page in pages
        for name in ADR_HEADINGS
        if name not in _headings(text(page))
    ]
    expect_none(silent)


def test_links_between_pages_lead_somewhere() -> None:
    """Every relative link of a page names a file or folder of the repository."""
    pages: list[Path] = [path for path in tracked_files() if path.suffix == ".md"]
    dead = [
        f"{label(page)}: {target}"
        for page in pages
        for target in LINK.findall(text(page))
        if not (page.parent / target).exists()
    ]
    expect_none(dead)


def test_tests_that_pages_name_are_there() -> None:
    """What a page of reasons says that a test shows, such as each degraded mode, a test shows."""
    pages = sorted((ROOT / "docs" / "explanation").glob("*.md"))
    files = {f"/{label(path)}" for path in python_files("tests")}
    known = {name for path in python_files("tests") for name in TEST.findall(text(path))}
    missing = []
    count = 0
    for page in pages:
        for name in NAMED_TEST.findall(text(page)):
            count += 1
            if name not in known and not any(path.endswith(f"/{name}") for path in files):
                missing.append(f"{label(page)}: {name}")
    assert count > 100
    expect_none(missing)


def test_the_first_page_shows_the_two_commands() -> None:
    """README.md shows `make run` and `make test` on its first screen."""
    first_screen = "\n".join(text(ROOT / "README.md").splitlines()[:40])
    assert "make run" in first_screen
    assert "make test" in first_screen
