"""penstock.yaml: reads it, checks everything in it, and says every fault at once."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from penstock.catalog import schemas
from penstock.catalog.compile import compile_snapshot, resolve_secrets
from penstock.catalog.document import Node, read_document
from penstock.catalog.document import Path as FieldPath
from penstock.catalog.errors import Finding, Mark, PlatformFileError
from penstock.catalog.explain import explain, finding
from penstock.catalog.model import Entry, PlatformFile, ResolveSecret
from penstock.catalog.references import check_references
from penstock.catalog.rules import list_unreachable
from penstock.contract.snapshot import Snapshot
from penstock.kit.secrets import resolve_secret as resolve_real_secret

MAX_FILE_BYTES = 8 * 1024 * 1024

_Item = TypeVar("_Item", bound=schemas.Item)


def load_platform_file(
    path: Path,
    pepper: bytes,
    *,
    version: int = 1,
    created_at_ns: int = 0,
    resolve_secret: ResolveSecret = resolve_real_secret,
) -> Snapshot:
    """Return the snapshot of a configuration file; reads it and the secrets that it names.

    Args:
        path: The file; relative paths in it are relative to its folder.
        pepper: See `compile_snapshot`, as for the others.
        version: Of the snapshot.
        created_at_ns: Of the snapshot, nanoseconds since the Unix epoch.
        resolve_secret: Returns what a secret reference names.

    Raises:
        PlatformFileError: Everything that is wrong with the file and its secrets.
    """
    source = str(path)
    platform, findings = examine(_read(path), source=source, folder=path.absolute().parent)
    findings += resolve_secrets(platform, resolve_secret)[1]
    findings += _check_ca_files(platform)
    if findings:
        raise PlatformFileError(findings)
    return compile_snapshot(
        platform,
        version=version,
        created_at_ns=created_at_ns,
        pepper=pepper,
        resolve_secret=resolve_secret,
    )


def parse(text: str, *, source: str, folder: Path) -> PlatformFile:
    """Return a configuration that is valid but for its secrets, which are not looked at.

    Args:
        text: The file's content.
        source: Its name, for findings.
        folder: What relative paths in it are relative to.

    Raises:
        PlatformFileError: Everything that is wrong with it.
    """
    platform, findings = examine(text, source=source, folder=folder)
    if findings:
        raise PlatformFileError(findings)
    return platform


def examine(text: str, *, source: str, folder: Path) -> tuple[PlatformFile, list[Finding]]:
    """Return the entries that are valid by themselves, and everything that is wrong.

    Args:
        text: See `parse`, as for the others.
        source: The file's name.
        folder: What relative paths are relative to.

    Raises:
        PlatformFileError: It is no YAML, so there is nothing to examine.
    """
    root, findings = read_document(text, source)
    findings += _validate(schemas.FileItem, root, (), source)[1]

    def read(section: str, model: type[_Item]) -> tuple[Entry[_Item], ...]:
        entries, faults = _read_section(root, section, model, source)
        findings.extend(faults)
        return entries

    platform = PlatformFile(
        folder=folder,
        organizations=read("organizations", schemas.OrganizationItem),
        projects=read("projects", schemas.ProjectItem),
        keys=read("keys", schemas.KeyItem),
        upstreams=read("upstreams", schemas.UpstreamItem),
        routes=read("routes", schemas.RouteItem),
        aliases=read("aliases", schemas.AliasItem),
    )
    findings += check_references(root, source)
    findings += _check_timeouts(platform)
    return platform, findings


def _read(path: Path) -> str:
    try:
        # Not to hang on a pipe, which has no end, nor on a device.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise _unreadable(path, "is no regular file; name the configuration file")
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        problem = f"cannot be read: {reason}; create it, correct its permissions or name another"
        raise _unreadable(path, problem) from None
    if len(content) > MAX_FILE_BYTES:
        raise _unreadable(path, f"is larger than {MAX_FILE_BYTES} bytes; make it smaller")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _unreadable(path, "is no UTF-8; save it as UTF-8", Mark(line)) from None


def _unreadable(path: Path, problem: str, mark: Mark | None = None) -> PlatformFileError:
    return PlatformFileError([Finding(str(path), mark or Mark(), "file", problem)])


def _validate(
    model: type[_Item], node: Node, path: FieldPath, source: str
) -> tuple[_Item | None, list[Finding]]:
    try:
        return model.model_validate(node.plain()), []
    except ValidationError as error:
        faults = error.errors(include_url=False)
        # A list of which no member is valid counts as too short, too: that says nothing more.
        told = (fault for fault in faults if fault["type"] != "too_short" or not fault["input"])
        return None, [finding(source, explain(fault, model, node, path)) for fault in told]


def _read_section(
    root: Node, section: str, model: type[_Item], source: str
) -> tuple[tuple[Entry[_Item], ...], list[Finding]]:
    listed = root.fields.get(section)
    entries, findings = [], []
    for index, node in enumerate(listed.items if listed else ()):
        path: FieldPath = (section, index)
        item, faults = _validate(model, node, path, source)
        findings += faults
        if item is not None:
            entries.append(Entry(item, path, node, source))
    return tuple(entries), findings


def _check_timeouts(platform: PlatformFile) -> Iterator[Finding]:
    for upstream in platform.upstreams:
        timeouts = upstream.item.timeouts
        for name in list_unreachable(timeouts.model_dump(exclude_unset=True)):
            problem = (
                f"is longer than total_ms, {timeouts.total_ms}, so it never comes about; "
                "shorten it or raise total_ms"
            )
            yield upstream.finding(("timeouts", name), problem)


def _check_ca_files(platform: PlatformFile) -> Iterator[Finding]:
    for upstream in platform.upstreams:
        name = upstream.item.tls_ca_file
        if name is not None and not os.access(platform.folder / name, os.R_OK):
            problem = "names a file that cannot be read; create it or correct the path"
            yield upstream.finding(("tls_ca_file",), problem)
