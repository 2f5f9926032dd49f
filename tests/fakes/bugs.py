"""What processes write into their logs when they meet a bug."""

from pathlib import Path

SIGNS = ("Traceback", "RuntimeError")


def expect_no_bugs(folder: Path) -> None:
    """Fail when a log of a data folder tells of one."""
    for path in folder.rglob("*.log"):
        content = path.read_text(errors="replace")
        for sign in SIGNS:
            at = content.find(sign)
            assert at < 0, f"{path.name}: {content[max(0, at - 500) : at + 4000]}"
