"""What must be done to make the database what a document says. Pure."""

from collections.abc import Collection, Iterable, Mapping

from penstock.catalog.apply.model import ORDER, Change, Members, Ref, State
from penstock.catalog.fields import FORMAT
from penstock.catalog.references import Identity
from penstock.catalog.schemas import SECTIONS, Item

_BEHIND_UPSTREAMS = ORDER.index("upstreams") + 0.5


def diff(
    desired: State,
    current: State,
    *,
    renewed: Collection[Ref] = (),
    unwanted: Collection[Ref] = (),
) -> list[Change]:
    """Return the changes that lead from one state to another, in the order to do them in.

    What is created or changed comes behind all that it refers to; what is removed comes last, and
    before all that it refers to.

    Args:
        desired: What the document has.
        current: What there is of it, and of `unwanted`.
        renewed: Objects whose secrets are others than those in the database.
        unwanted: Objects that are to be removed.
    """
    changes = []
    for ref in in_order(desired):
        before, after = current.get(ref), desired[ref]
        if before is None:
            changes.append(Change(action="create", ref=ref, after=after))
            continue
        if before != after:
            changes.append(Change(action="update", ref=ref, before=before, after=after))
        if ref in renewed:
            changes.append(Change(action="rotate", ref=ref))
    there = {ref: current[ref] for ref in unwanted if ref in current and ref not in desired}
    changes += [
        Change(action="delete", ref=ref, before=there[ref]) for ref in reversed(in_order(there))
    ]
    return changes


def to_document(state: State) -> dict[str, object]:
    """Return a document that has exactly these objects; fields with their defaults are left out.

    It holds no secret: keys and credentials keep those that they have.
    """
    entries: dict[str, list[Members]] = {section: [] for section in SECTIONS}
    for ref in in_order(state):
        entries[ref.section].append(_to_entry(ref, state[ref]))
    return {"version": FORMAT, **{name: found for name, found in entries.items() if found}}


def _to_entry(ref: Ref, members: Members) -> Members:
    fields = SECTIONS[ref.section].model_fields
    kept = {
        name: value
        for name, value in members.items()
        if fields[name].is_required() or value != _plain_default(fields[name].default)
    }
    # The name first, then its owners.
    return {**dict(reversed(ref.names.items())), **kept}


def _plain_default(value: object) -> object:
    if isinstance(value, tuple):
        return sorted(value)
    return {} if isinstance(value, Item) else value


def in_order(state: State) -> list[Ref]:
    """Return objects, each behind those that it refers to, by name otherwise."""
    ranks = {section: float(rank) for rank, section in enumerate(ORDER)}
    routes = {ref.identity: members for ref, members in state.items() if ref.section == "routes"}
    depths = _depths({identity: members["fallback"] for identity, members in routes.items()})

    def place(ref: Ref) -> tuple[float, int, tuple[str, ...]]:
        rank = ranks[ref.section]
        if ref.section == "credentials" and ref.identity[0] is not None:
            rank = _BEHIND_UPSTREAMS
        depth = depths.get(ref.identity, 0) if ref.section == "routes" else 0
        return rank, depth, tuple(part or "" for part in ref.identity)

    return sorted(state, key=place)


def _depths(fallbacks: Mapping[Identity, str | None]) -> dict[Identity, int]:
    """Return how many of the routes are behind each one, along their fallbacks."""
    depths: dict[Identity, int] = {}
    for start in fallbacks:
        chain: dict[Identity, None] = {}
        step = start
        while step in fallbacks and step not in depths and step not in chain:
            chain[step] = None
            step = (fallbacks[step],)
        depth = depths.get(step, -1)
        for name in reversed(chain):
            depth += 1
            depths[name] = depth
    return depths


def missing_secrets(desired: State, current: State, given: Iterable[Ref]) -> list[Ref]:
    """Return the new keys and credentials that come without a secret.

    Args:
        desired: What the document has.
        current: What there is of it.
        given: Objects whose secrets the document has.
    """
    known = set(given) | set(current)
    return [ref for ref in desired if ref.section in {"keys", "credentials"} and ref not in known]
