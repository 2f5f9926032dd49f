"""Rules as they are kept and as nodes are told them: pure, no clock, no I/O."""

import hashlib
from collections.abc import Iterable
from typing import Any

import msgspec

from penstock.catalog.rules import check_model, check_name
from penstock.catalog.written_rules import MAX_RULES
from penstock.contract.limits import Limit, find_limit_fault
from penstock.limits.model import KeptRules
from penstock.limits.rules import slot_of
from penstock.tenancy.labels import find_label_fault


def read_rules(owner_id: str, kept: object) -> tuple[Limit, ...]:
    """Return the rules of a row as nodes are told them.

    The id of a rule follows from whose it is and from what it counts, so what was used is still
    used when a figure changes.

    Args:
        owner_id: Id of the row of the plan, or of the owner's limits.
        kept: What its column holds, whoever wrote it.

    Raises:
        ValueError: What is wrong and the remedy.
    """
    try:
        rules = msgspec.convert([{**members, "id": ""} for members in _members(kept)], list[Limit])
    except msgspec.ValidationError as error:
        message = f"they cannot be read: {error}; correct them"
        raise ValueError(message) from None
    if len(rules) > MAX_RULES:
        message = f"there are {len(rules)}; use at most {MAX_RULES}"
        raise ValueError(message)
    limits = []
    slots = set()
    for index, rule in enumerate(rules):
        fault = _find_fault(rule)
        if fault is None and slot_of(rule) in slots:
            fault = "another one counts the same in the same window; leave one of the two out"
        if fault is not None:
            message = f"[{index}] {fault}"
            raise ValueError(message)
        slots.add(slot_of(rule))
        digest = hashlib.blake2s(_slot_words(rule).encode(), digest_size=6).hexdigest()
        limits.append(msgspec.structs.replace(rule, id=f"{owner_id}.{digest}"))
    return tuple(limits)


def keep_rules(limits: Iterable[Limit]) -> KeptRules:
    """Return rules as they are kept, in one order."""
    kept = [(_slot_words(limit), msgspec.to_builtins(limit)) for limit in limits]
    return [
        {name: value for name, value in members.items() if name != "id"}
        for _, members in sorted(kept, key=lambda pair: pair[0])
    ]


def list_named(limits: Iterable[Limit]) -> tuple[set[str], set[str]]:
    """Return the aliases and the models that rules name."""
    limits = list(limits)
    return (
        {limit.alias for limit in limits if limit.alias is not None},
        {limit.model for limit in limits if limit.model is not None},
    )


def _members(kept: object) -> list[dict[str, Any]]:
    if not isinstance(kept, list) or not all(isinstance(members, dict) for members in kept):
        message = "they are no list of rules; correct them"
        raise ValueError(message)
    return kept


def _find_fault(rule: Limit) -> str | None:
    fault = find_limit_fault(rule)
    try:
        if rule.alias is not None:
            check_name(rule.alias)
        if rule.model is not None:
            check_model(rule.model)
    except ValueError as error:
        return fault or f"alias or model {error}"
    label_fault = None if rule.label is None else find_label_fault(rule.label)
    return fault or (label_fault and f"label: {label_fault}")


def _slot_words(rule: Limit) -> str:
    *parts, label = slot_of(rule)
    words = "\n".join("" if part is None else str(part) for part in parts)
    # Rules were there before labels were: the ids of those without one stay.
    return words if label is None else f"{words}\n{label}"
