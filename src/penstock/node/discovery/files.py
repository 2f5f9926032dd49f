"""Endpoints that a file on the node lists, in the form of Prometheus' `file_sd`.

A file that is not whole changes nothing: it has to be at rest for a moment, and of the right form.
Whoever writes it beside its place and renames it is never read halfway.

Source: the form is documented at prometheus.io, "Configuration", `<file_sd_config>`.
"""

import asyncio
import os
import stat
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Annotated, Any

import msgspec

from penstock.catalog.discovery import Source
from penstock.catalog.document import read_document
from penstock.catalog.errors import PlatformFileError
from penstock.catalog.rules import check_endpoints, parse_endpoints
from penstock.contract.snapshot import Endpoint
from penstock.node.discovery.answer import Answer
from penstock.node.discovery.labels import FILE_ENGINE, FILE_WEIGHT, labelled

PERIOD_S = 1.0
"""From one look to the next; a file has to be the same in two of them."""
MAX_BYTES = 1024 * 1024
MAX_LISTED = 65_536
"""Ranges of ports make much of few bytes."""
_SCHEME = "__scheme__"

Fingerprint = tuple[int, int, int]


class Group(msgspec.Struct, frozen=True):
    """Targets that have their labels in common."""

    targets: Annotated[list[str], msgspec.Meta(max_length=10_000)]
    """Each `HOST:PORTS`, or a URL."""
    labels: dict[str, Any] = {}
    """`__scheme__`, `__weight__` and `__engine__` are the targets'; others are not for us."""


_decode_json = msgspec.json.Decoder(list[Group]).decode


def read_targets(source: Source, content: bytes) -> tuple[Endpoint, ...]:
    """Return the endpoints that a file lists.

    Args:
        source: Of kind `file`; its name says by which rules it is read.
        content: All of it.

    Raises:
        ValueError: What is wrong.
    """
    if source.name.endswith(".json"):
        groups = _decode_json(content)
    else:
        try:
            root, findings = read_document(content.decode(), source.name)
        except PlatformFileError as error:
            raise ValueError(str(error)) from None
        if findings:
            raise ValueError(str(findings[0]))
        groups = msgspec.convert(root.plain(), list[Group])
    found: list[Endpoint] = []
    for target, labels in ((each, group.labels) for group in groups for each in group.targets):
        endpoints = _endpoints(source, target, labels.get(_SCHEME))
        found += (labelled(each, labels, FILE_ENGINE, FILE_WEIGHT) for each in endpoints)
        if len(found) > MAX_LISTED:
            message = f"it lists more than {MAX_LISTED} endpoints"
            raise ValueError(message)
    check_endpoints(found)
    return tuple(found)


def _endpoints(source: Source, target: str, scheme: object) -> list[Endpoint]:
    url = target
    if "://" not in target:
        url = f"{scheme or source.scheme}://{target}{source.path_prefix}"
    try:
        found = parse_endpoints(url)
    except ValueError as error:
        message = f"a target {error}"
        raise ValueError(message) from None
    return [msgspec.structs.replace(each, server_name=source.server_name) for each in found]


async def follow_file(source: Source, period_s: float = PERIOD_S) -> AsyncGenerator[Answer, None]:
    """Yield what a file says, at every look: what it said last as long as it is the same.

    Args:
        source: Of kind `file`.
        period_s: From one look to the next.
    """
    path = Path(source.name)
    seen: Fingerprint | None = None
    """At the last look; None when it could not be looked at."""
    read: Fingerprint | None = None
    """When `answer` was read."""
    answer = Answer(None)
    while True:
        try:
            before, seen = seen, await asyncio.to_thread(_fingerprint, path)
            if seen == before and seen != read:
                answer = await asyncio.to_thread(_read, source, path)
                read, seen = seen, await asyncio.to_thread(_fingerprint, path)
            if before == read == seen:
                yield answer
        except OSError as error:
            seen = read = None
            yield Answer(None, error.strerror or type(error).__name__)
        await asyncio.sleep(period_s)


def _fingerprint(path: Path) -> Fingerprint:
    found = path.stat()
    return found.st_mtime_ns, found.st_size, found.st_ino


def _read(source: Source, path: Path) -> Answer:
    # Not to hang on a pipe, which has no end, nor on a device.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return Answer(None, "it is no regular file")
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        return Answer(None, f"it is larger than {MAX_BYTES} bytes")
    try:
        return Answer(read_targets(source, content))
    except ValueError as error:
        return Answer(None, str(error))
