"""Checks of the data folder: who may read it, what is in it."""

import stat
from pathlib import Path

from penstock.cli.checks.model import Finding, Verdict
from penstock.cli.config import CONFIG_FILE
from penstock.cli.instance import FACTS_FILE

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def check_permissions(folder: Path) -> Finding:
    """Look whether others can read the secrets, and whether we can read and write."""
    name = "Data folder"
    if not folder.is_dir():
        remedy = "`penstock dev` makes it; or name another with --data."
        return Finding(name, Verdict.SKIPPED, f"{folder} does not exist yet", remedy)
    try:
        # Secrets lie in no deeper folder, and dev.json holds the key and the token.
        private = [folder / FACTS_FILE, folder / "secrets", *(folder / "secrets").glob("*")]
        exposed = [p for p in private if p.exists() and stat.S_IMODE(p.stat().st_mode) & _OTHERS]
    except OSError as error:
        remedy = "Run as the user that owns it."
        return Finding(name, Verdict.FAILED, f"{folder}: {error.strerror}", remedy)
    if exposed:
        detail = f"others may read {', '.join(str(p.relative_to(folder)) for p in exposed)}"
        remedy = f"chmod -R go-rwx {folder / 'secrets'} {folder / FACTS_FILE}"
        return Finding(name, Verdict.FAILED, detail, remedy)
    return Finding(name, Verdict.OK, f"{folder}, secrets for its owner only")


def check_config(path: Path) -> Finding:
    """Look whether the configuration is valid."""
    from penstock.catalog.compile import find_unused  # noqa: PLC0415  # start-up time
    from penstock.catalog.errors import PlatformFileError  # noqa: PLC0415  # as above
    from penstock.catalog.platform_file import check_platform_file  # noqa: PLC0415  # as above

    name = "Configuration"
    if not path.exists() and path.name == CONFIG_FILE:
        return Finding(name, Verdict.SKIPPED, f"{path} does not exist yet")
    try:
        platform = check_platform_file(path)
    except PlatformFileError as error:
        count = len(error.findings)
        detail = str(error.findings[0]) + (f" (and {count - 1} more)" if count > 1 else "")
        return Finding(name, Verdict.FAILED, detail, f"penstock config check {path}")
    for unused in find_unused(platform):
        return Finding(name, Verdict.NOTE, str(unused), f"penstock config check {path}")
    models = len(platform.aliases)
    return Finding(name, Verdict.OK, f"{path}: {models} models, {len(platform.keys)} keys")
