"""Platform files on their way to the control plane, and what it says to them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.catalog.compile import anchor_reference, is_reference, resolve_secrets
from penstock.catalog.errors import Finding, Mark, PlatformFileError
from penstock.catalog.fields import FORMAT
from penstock.catalog.model import ResolveSecret, Sections, Written
from penstock.catalog.platform_file import ReadFile, examine, read_platform_file
from penstock.cli.errors import ControlRefusedError
from penstock.kit.secrets import resolve_secret as resolve_real_secret

if TYPE_CHECKING:
    from penstock.cli.control_client import ControlClient, Row

APPLY = "/api/v1/platform/apply"
EXPORT = "/api/v1/platform/export"
INVALID = "err:control:catalog:document_invalid"
TIMEOUT_S = 300.0
_SUFFIXES = {".yaml", ".yml"}


@dataclass(frozen=True, slots=True)
class ReadDocument:
    """Platform files that can be applied, as far as can be known here."""

    sections: Sections
    content: "dict[str, Any]"
    """What is sent. It holds secrets: it is for the control plane alone."""

    def locate(self, path: Sequence[str | int], where: str, problem: str) -> Finding:
        """Return a fault that control found, at its place in the files."""
        match list(path):
            case [str(section), int(index), *field] if index < len(self.sections.get(section, ())):
                return self.sections[section][index].finding(tuple(field), problem)
        return Finding("(control)", Mark(), where, problem)


def list_files(paths: Sequence[Path]) -> list[Path]:
    """Return files, and those that are directly in folders, by name.

    Raises:
        PlatformFileError: A folder has none, or cannot be read.
    """
    files = []
    for path in paths:
        if not path.is_dir():
            files.append(path)
            continue
        try:
            found = sorted(one for one in path.iterdir() if one.suffix in _SUFFIXES)
        except OSError as error:
            problem = f"cannot be read: {error.strerror}; correct its permissions"
            raise PlatformFileError([Finding(str(path), Mark(), "folder", problem)]) from None
        if not found:
            problem = "has no file whose name ends in .yaml or .yml; name another folder"
            raise PlatformFileError([Finding(str(path), Mark(), "folder", problem)])
        files += found
    return files


def read_files(
    paths: Sequence[Path], resolve_secret: ResolveSecret = resolve_real_secret
) -> ReadDocument:
    """Return what files and folders say together, with the secrets that they name.

    Args:
        paths: Files, and folders of files.
        resolve_secret: Returns what a secret reference names.

    Raises:
        PlatformFileError: Everything that is wrong with them, wherever references lead.
    """
    files: list[ReadFile] = []
    unreadable: list[Finding] = []
    for path in list_files(paths):
        try:
            files.append(read_platform_file(path))
        except PlatformFileError as error:
            unreadable += error.findings
    if unreadable:
        raise PlatformFileError([*unreadable, *(one for file in files for one in file.findings)])
    examined = examine(files)
    secrets, findings = resolve_secrets(examined.platform, resolve_secret, are_for_nodes=False)
    findings += examined.findings
    if findings:
        raise PlatformFileError(findings)
    content = {
        section: [
            _send(section, written, secrets.get((section, index)))
            for index, written in enumerate(entries)
        ]
        for section, entries in examined.sections.items()
        if entries
    }
    return ReadDocument(examined.sections, {"version": FORMAT, **content})


def send(
    client: "ControlClient",
    document: ReadDocument,
    *,
    set_name: str,
    is_dry_run: bool = False,
    is_pruning: bool = False,
) -> "Row":
    """Apply a document, and return what control did, or would do.

    Raises:
        PlatformFileError: What control found wrong with it, in the files.
        CommandError: Control is not there, refuses us, or fails.
    """
    body = {
        "set": set_name,
        "is_dry_run": is_dry_run,
        "prune": is_pruning,
        "document": document.content,
    }
    try:
        return client.change("POST", APPLY, body, timeout_s=TIMEOUT_S)
    except ControlRefusedError as error:
        if error.code != INVALID or not error.faults:
            raise
        raise PlatformFileError(
            document.locate(
                fault.get("path") or (), str(fault.get("parameter")), str(fault.get("detail"))
            )
            for fault in error.faults
        ) from None


def _send(section: str, written: Written, secret: str | None) -> "dict[str, Any]":
    """Return an entry as it is sent: with secrets, and with paths that mean the same elsewhere."""
    entry: dict[str, Any] = written.node.plain()
    if secret is not None:
        entry["secret"] = secret
    if section == "upstreams":
        credential, ca_file = entry.get("credential"), entry.get("tls_ca_file")
        if credential is not None and is_reference(credential):
            entry["credential"] = anchor_reference(credential, written.folder)
        if ca_file is not None:
            entry["tls_ca_file"] = str(written.folder / ca_file)
    if entry.get("tokenizer") is not None:
        entry["tokenizer"] = str(written.folder / entry["tokenizer"])
    return entry
