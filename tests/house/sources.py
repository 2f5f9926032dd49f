"""The repository as the house rules read it: its files, and their syntax trees, parsed once."""

import ast
import subprocess
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "penstock"

Function = ast.FunctionDef | ast.AsyncFunctionDef


def expect_none(problems: Sequence[str]) -> None:
    """Fail with every problem on a line of its own."""
    if problems:
        pytest.fail("\n".join(problems), pytrace=False)


def label(path: Path, line: int | None = None) -> str:
    """Return the path as people and editors want to read it."""
    name = path.relative_to(ROOT).as_posix()
    return name if line is None else f"{name}:{line}"


@cache
def tracked_files() -> tuple[Path, ...]:
    """Return every file that is, or is about to be, under version control.

    Where there is no git, or no repository (a tarball), it is every file that is not hidden.
    """
    try:
        listing = subprocess.run(
            # The checkout may belong to another user, as it does in containers.
            ["git", "-c", "safe.directory=*", "ls-files", "-z", "-co", "--exclude-standard"],
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        paths = [path for path in ROOT.rglob("*") if not _is_hidden(path.relative_to(ROOT))]
    else:
        paths = [ROOT / name for name in listing.split("\0") if name]
    return tuple(sorted({path for path in paths if path.is_file()}))


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") or part == "__pycache__" for part in path.parts)


def python_files(*folders: str) -> tuple[Path, ...]:
    """Return the Python files of these folders of the repository; of all when none is named."""
    roots = [ROOT / folder for folder in folders] or [ROOT]
    return tuple(
        path
        for path in tracked_files()
        if path.suffix == ".py" and any(path.is_relative_to(root) for root in roots)
    )


@cache
def text(path: Path) -> str:
    """Return the file's text."""
    return path.read_text(encoding="utf-8")


@cache
def tree(path: Path) -> ast.Module:
    """Return the file's syntax tree."""
    return ast.parse(text(path), filename=str(path))


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """Return every node of the file's syntax tree."""
    return tuple(ast.walk(tree(path)))


def functions(path: Path) -> Iterator[Function]:
    """Return every function of a file, methods and inner ones included."""
    for node in nodes(path):
        if isinstance(node, Function):
            yield node


def module_name(path: Path) -> str:
    """Return the dotted name of a module of the package."""
    parts = path.relative_to(ROOT / "src").with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
