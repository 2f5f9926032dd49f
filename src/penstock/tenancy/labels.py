"""Labels of keys, and of the people and machines that keys belong to. Pure, no I/O.

Limits and budgets may be for keys that carry one; what callers say in their requests are others.
"""

import re
from collections.abc import Mapping

MAX_LABELS = 32
MAX_LABEL_CHARS = 256

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,63}")


def find_labels_fault(labels: Mapping[str, str]) -> str | None:
    """Return why there cannot be these labels, as a sentence; None for nothing."""
    if len(labels) > MAX_LABELS:
        return f"There are at most {MAX_LABELS} labels."
    for name, value in labels.items():
        is_sane = not value or (len(value) <= MAX_LABEL_CHARS and value.isprintable())
        if not _NAME.fullmatch(name) or not is_sane:
            return (
                "A label's name is 1 to 64 of letters, digits and ._/- and begins with a letter or "
                f"digit; its value is at most {MAX_LABEL_CHARS} visible characters."
            )
    return None


def find_label_fault(label: str) -> str | None:
    """Return why a rule cannot be for a label, as a sentence; None for nothing."""
    name, equals, value = label.partition("=")
    if not equals:
        return "A label is written NAME=VALUE."
    return find_labels_fault({name: value})


def are_labels(value: object) -> bool:
    """Return whether a value is labels: a row that something else wrote may be damaged."""
    return isinstance(value, dict) and all(
        isinstance(text, str) for text in (*value, *value.values())
    )


def known_labels(value: object) -> dict[str, str]:
    """Return labels as they are shown: of a damaged row what of it can be one."""
    if not isinstance(value, dict):
        return {}
    return {name: text for name, text in value.items() if isinstance(text, str)}


def join_labels(*carried: Mapping[str, str]) -> list[str]:
    """Return labels as rules name them, in one order: those of a key and of whom it belongs to.

    All of them count. Where both have one of the same name neither hides the other, so that no
    label of a key takes it out of what is for its owner.

    >>> join_labels({"team": "search", "grade": "intern"}, {"team": "ads"})
    ['grade=intern', 'team=ads', 'team=search']
    """
    return sorted({f"{name}={value}" for labels in carried for name, value in labels.items()})
