"""Labels of a request: names and values by which callers find their costs. Pure.

They end in reports that many people read, so they are short, and their form leaves no room for
prose or mail addresses; which names may be used is the operator's to say.
"""

import re
from collections.abc import Collection

from penstock.gateway.errors import LABELS_INVALID
from penstock.gateway.limits import LABEL_NAME_CHARS, LABEL_VALUE_CHARS, LABELS
from penstock.kit.errors import Refusal

Labels = tuple[tuple[str, str], ...]

_NAME = f"[a-z][a-z0-9_.-]{{0,{LABEL_NAME_CHARS - 1}}}"
_VALUE = f"[A-Za-z0-9][A-Za-z0-9_.:/+-]{{0,{LABEL_VALUE_CHARS - 1}}}"
_LABEL = re.compile(f"[ \t]*(?P<name>{_NAME})=(?P<value>{_VALUE})[ \t]*")
_SHOWN_CHARS = 64


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
