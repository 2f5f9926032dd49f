"""penstock.yaml: reads it, checks everything in it, and says every fault at once."""

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from penstock.catalog import schemas
from penstock.catalog.compile import compile_snapshot, find_unsupported, resolve_secrets
from penstock.catalog.document import Node, format_path, read_document
from penstock.catalog.document import Path as FieldPath
from penstock.catalog.errors import Finding, Mark, PlatformFileError
from penstock.catalog.explain import explain
from penstock.catalog.model import (
    Entry,
    PlatformFile,
    ResolveSecret,
    Sections,
    Written,
    merge_sections,
)
from penstock.catalog.references import (
    Names,
    Reference,
    find_dangling,
    find_faults,
    find_references,
    identify,
    is_short,
    read_names,
    tell_dangling,
)
from penstock.catalog.rules import list_unreachable
from penstock.contract.snapshot import Snapshot
from penstock.engines.operating import loads_adapters
from penstock.engines.registry import engine_of
from penstock.kit.secrets import resolve_secret as resolve_real_secret

MAX_FILE_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """What was found in a configuration."""

    platform: PlatformFile
    """The entries that are valid by themselves."""
    sections: Sections
    names: Names
    findings: list[Finding]
    """Everything that is wrong, wherever the references lead that follow."""
    dangling: list[Reference]
    """References to what is not in the configuration itself."""

    def all_findings(self) -> list[Finding]:
        """Return everything that is wrong with a configuration that stands alone."""
        dangling = find_dangling(self.dangling, self.names.has)
        return [*self.findings, *tell_dangling(dangling, self.names)]


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
        PlatformFileError: Everything that is wrong with the file and its secrets, and what a node
            without a control plane has no use for.
    """
    platform = check_platform_file(path, resolve_secret, more=find_unsupported)
    return compile_snapshot(
        platform,
        version=version,
        created_at_ns=created_at_ns,
        pepper=pepper,
        resolve_secret=resolve_secret,
    )


def check_platform_file(
    path: Path,
    resolve_secret: ResolveSecret = resolve_real_secret,
    *,
    more: Callable[[PlatformFile], Iterable[Finding]] = lambda _: (),
) -> PlatformFile:
    """Return a configuration file that is valid, with secrets that can be read.

    Args:
        path: See `load_platform_file`, as for the others.
        resolve_secret: Returns what a secret reference names.
        more: Finds what else is wrong.

    Raises:
        PlatformFileError: Everything that is wrong with the file and its secrets.
    """
    examined = examine([read_platform_file(path)])
    platform, findings = examined.platform, examined.all_findings()
    findings += resolve_secrets(platform, resolve_secret)[1]
    findings += _check_ca_files(platform)
    findings += more(platform)
    if findings:
        raise PlatformFileError(findings)
    return platform


def parse(text: str, *, source: str, folder: Path) -> PlatformFile:
    """Return a configuration that is valid but for its secrets, which are not looked at.

    Args:
        text: The file's content.
        source: Its name, for findings.
        folder: What relative paths in it are relative to.

    Raises:
        PlatformFileError: Everything that is wrong with it.
    """
    examined = examine([read_text(text, source=source, folder=folder)])
    findings = examined.all_findings()
    if findings:
        raise PlatformFileError(findings)
    return examined.platform


@dataclass(frozen=True, slots=True)
class ReadFile:
    """A file that is YAML, whatever else is wrong with it."""

    sections: Sections
    findings: list[Finding]


def read_platform_file(path: Path) -> ReadFile:
    """Return what a file has in its sections.

    Raises:
        PlatformFileError: It cannot be read or is no YAML, so there is nothing to examine.
    """
    return read_text(_read(path), source=str(path), folder=path.absolute().parent)


def read_text(text: str, *, source: str, folder: Path) -> ReadFile:
    """Return what a text has in its sections; see `parse`.

    Raises:
        PlatformFileError: It is no YAML, so there is nothing to examine.
    """
    root, findings = read_document(text, source)
    found = read_sections(root, source=source, folder=folder)
    return ReadFile(found.sections, findings + found.findings)


def read_sections(root: Node, *, source: str, folder: Path) -> ReadFile:
    """Return what a document has in its sections, and what is wrong with it around them."""
    whole = Written(root, (), source, folder)
    _, findings = _validate(schemas.FileItem, whole)
    sections = {
        section: [
            Written(node, (section, index), source, folder)
            for index, node in enumerate(root.fields[section].items)
        ]
        for section in schemas.SECTIONS
        if section in root.fields
    }
    return ReadFile(sections, findings)


def examine(
    files: Sequence[ReadFile], kinds: Mapping[str, type[schemas.Item]] = schemas.SECTIONS
) -> Examined:
    """Return the entries that are valid by themselves, and everything that is wrong.

    Args:
        files: What makes up the configuration.
        kinds: What entries of each section must be like.
    """
    sections = merge_sections(file.sections for file in files)
    names, duplicates = read_names(sections)
    platform, faults = _read_entries(sections, kinds, names)
    findings = [finding for file in files for finding in file.findings]
    findings += [*faults, *duplicates, *find_faults(sections, names)]
    findings += [*_check_timeouts(platform), *_check_adapters(platform)]
    return Examined(
        platform=platform,
        sections=sections,
        names=names,
        findings=findings,
        dangling=[
            reference
            for reference in find_references(sections, names)
            if not names.has(reference.target)
        ],
    )


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
    model: type[schemas.Item], written: Written
) -> tuple[schemas.Item | None, list[Finding]]:
    try:
        return model.model_validate(written.node.plain()), []
    except ValidationError as error:
        faults = error.errors(include_url=False)
    findings = []
    for fault in faults:
        # A list of which no member is valid counts as too short, too: that says nothing more.
        if fault["type"] == "too_short" and fault["input"]:
            continue
        field, mark, problem = explain(fault, model, written.node)
        path: FieldPath = (*written.path, *field)
        findings.append(Finding(written.source, mark, format_path(path), problem, path))
    return None, findings


def _read_entries(
    sections: Sections, kinds: Mapping[str, type[schemas.Item]], names: Names
) -> tuple[PlatformFile, list[Finding]]:
    found: dict[str, list[Entry[Any]]] = {section: [] for section in kinds}
    findings: list[Finding] = []
    for section, kind in kinds.items():
        for written in sections[section]:
            is_short_route = section == "routes" and is_short(written)
            item, faults = _validate(schemas.ShortRouteItem if is_short_route else kind, written)
            findings += faults
            match item:
                case None:
                    continue
                case schemas.ShortRouteItem():
                    found["deployments"].append(Entry(item.deployment, written))
                    item = item.route
                case schemas.KeyItem(organization=None):
                    identity = identify("keys", written, names)
                    owner = None if identity is None else identity[0]
                    item = item.model_copy(update={"organization": owner})
            found[section].append(Entry(item, written))
    return PlatformFile(**{section: tuple(entries) for section, entries in found.items()}), findings


def _check_timeouts(platform: PlatformFile) -> Iterator[Finding]:
    for upstream in platform.upstreams:
        timeouts = upstream.item.timeouts
        for name in list_unreachable(timeouts.model_dump(exclude_unset=True)):
            problem = (
                f"is longer than total_ms, {timeouts.total_ms}, so it never comes about; "
                "shorten it or raise total_ms"
            )
            yield upstream.finding(("timeouts", name), problem)


def _check_adapters(platform: PlatformFile) -> Iterator[Finding]:
    providers = {upstream.item.name: upstream.item.provider for upstream in platform.upstreams}
    for entry in platform.deployments:
        provider = providers.get(entry.item.upstream)
        if provider is None or entry.item.adapter_path is None:
            continue
        if not loads_adapters(engine_of(provider)):
            problem = (
                f"servers of {provider} are not told to load adapters; "
                "remove it, or name in provider what serves the upstream"
            )
            yield entry.finding(("adapter_path",), problem)


def _check_ca_files(platform: PlatformFile) -> Iterator[Finding]:
    for upstream in platform.upstreams:
        name = upstream.item.tls_ca_file
        if name is not None and not os.access(upstream.written.folder / name, os.R_OK):
            problem = "names a file that cannot be read; create it or correct the path"
            yield upstream.finding(("tls_ca_file",), problem)
