"""Labels of a request: names and values by which callers find their costs. Pure.

A header says them, and, where the operator wants it, the `metadata` of the body.
They end in reports that many people read, so they are short, and their form leaves no room for
prose or mail addresses; which names may be used is the operator's to say.
"""

import re
from collections.abc import Collection
from typing import Any

import msgspec

from penstock.gateway.errors import LABELS_INVALID
from penstock.gateway.limits import LABEL_NAME_CHARS, LABEL_VALUE_CHARS, LABELS
from penstock.kit.errors import Refusal

Labels = tuple[tuple[str, str], ...]

_NAME = f"[a-z][a-z0-9_.-]{{0,{LABEL_NAME_CHARS - 1}}}"
_VALUE = f"[A-Za-z0-9][A-Za-z0-9_.:/+-]{{0,{LABEL_VALUE_CHARS - 1}}}"
_LABEL = re.compile(f"[ \t]*(?P<name>{_NAME})=(?P<value>{_VALUE})[ \t]*")
_IS_VALUE = re.compile(_VALUE)
_SHOWN_CHARS = 64


_decode_metadata = msgspec.json.Decoder(dict[str, Any]).decode


def read_labels(value: bytes) -> Labels | Refusal:
    """Return the labels that a header field says, in order of name.

    Args:
        value: `name=value` with commas between them.
    """
    text = value.decode("latin-1")
    if not text.strip():
        return ()
    found: dict[str, str] = {}
    for part in text.split(","):
        match = _LABEL.fullmatch(part)
        if match is None:
            shown = part.strip()[:_SHOWN_CHARS]
            return _refuse(f"{shown!a} is no label. Write name=value with commas between them")
        name = match["name"]
        if name in found:
            return _refuse(f"the label '{name}' is there twice")
        found[name] = match["value"]
        if len(found) > LABELS:
            return _refuse(f"there are more than {LABELS} labels")
    return tuple(sorted(found.items()))


def add_metadata(labels: Labels, raw: msgspec.Raw, allowed: Collection[str]) -> Labels:
    """Return labels with those that the `metadata` of a request gives, in order of name.

    It is the engine's first: what is no label there is left out, and nothing is refused for it.
    What the header says stays, and both together are not more than `LABELS`.

    Args:
        labels: What the header says.
        raw: That member, as JSON.
        allowed: The names that the operator takes from there.
    """
    try:
        metadata = _decode_metadata(raw)
    except msgspec.DecodeError:
        return labels
    found = dict(labels)
    for name in sorted(metadata.keys() & allowed):
        value = metadata[name]
        if isinstance(value, str) and _IS_VALUE.fullmatch(value) and len(found) < LABELS:
            found.setdefault(name, value)
    return tuple(sorted(found.items()))


def check_labels(labels: Labels, allowed: Collection[str]) -> Refusal | None:
    """Return why labels may not be used, if so.

    Args:
        labels: Of one request.
        allowed: The names that the operator lists.
    """
    for name, _ in labels:
        if name not in allowed:
            known = ", ".join(sorted(allowed)) or "none"
            return _refuse(f"the label '{name}' may not be used here; these may: {known}")
    return None


def _refuse(why: str) -> Refusal:
    return Refusal(LABELS_INVALID, f"In x-penstock-labels, {why}.")
