"""Applies a document to the database, and writes one of what is there. Nothing is committed here.

A document is applied by the services of the rooms, in one transaction: each change has its rules,
its entry in the audit log and its line in the change feed, and all of them happen or none.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from penstock.access.errors import GRANT_EXCEEDED, OPERATION_DENIED
from penstock.catalog.apply import store
from penstock.catalog.apply.checking import find_faults, find_renewed, mentioned
from penstock.catalog.apply.desired import read_sent, read_wanted
from penstock.catalog.apply.diff import diff, in_order, to_document
from penstock.catalog.apply.kind import Hands, Kind, Mention
from penstock.catalog.apply.kinds_secrets import OF_A_MEMBER
from penstock.catalog.apply.model import Applied, Change, Ref, Wanted
from penstock.catalog.apply.reading import Reader
from penstock.catalog.errors import (
    DOCUMENT_INVALID,
    EXPORT_TOO_LARGE,
    Finding,
    Mark,
    PlatformFileError,
)
from penstock.kit.errors import PenstockError
from penstock.storage.sessions import ReadSession

MAX_EXPORTED_OBJECTS = 100_000
_DENIALS = (OPERATION_DENIED, GRANT_EXCEEDED)
_SERVER_FAULT = 500
_KEPT_ON_RECORD = "service_accounts"
"""Not removed but disabled: its keys name it. It stays its set's, which may enable it again."""
_DISABLED = "is_disabled"


async def apply(
    hands: Hands,
    kinds: Iterable[Kind],
    document: Mapping[str, Any],
    *,
    set_name: str,
    is_pruning: bool,
) -> Applied:
    """Make the database what a document says, in the transaction of its session.

    Args:
        hands: Where, and by whom.
        kinds: What there is of each section.
        document: A platform file as JSON values, with secrets in place of references.
        set_name: Which set of files it is: only what the same set made is ever removed.
        is_pruning: Remove what this set made earlier and the document has no more.

    Raises:
        PlatformFileError: `DOCUMENT_INVALID`, with everything that is wrong with it, or with the
            first object that could not be changed. Let the transaction fail with it.
        PenstockError: `GRANT_EXCEEDED`, `KEK_UNAVAILABLE`.
    """
    session = hands.session
    await session.lock_configuration()
    examined = read_sent(document)
    wanted = read_wanted(examined.platform)
    reader = Reader(session, kinds)
    made = await store.list_made(session, session.scope, set_name)
    await reader.read_named({*wanted, *mentioned(examined)})
    await reader.read_ids(made)
    findings = await find_faults(session, examined, wanted, reader)
    if findings:
        raise PlatformFileError(findings, DOCUMENT_INVALID)
    gone = [ref for ref in _refs_of(made, reader) if ref not in wanted]
    leftovers = in_order({ref: reader.members[ref] for ref in gone})
    unwanted = await _find_own(hands, leftovers, reader) if is_pruning else []
    changes = diff(
        {ref: one.members for ref, one in wanted.items()},
        reader.members,
        renewed=await find_renewed(hands, wanted, reader),
        unwanted=unwanted,
    )
    owners = await _list_owners(session, wanted, reader)
    for change in changes:
        await _make(hands, change, wanted.get(change.ref), reader)
    created = {change.ref for change in changes if change.action == "create"}
    ours = {ref for ref in wanted if ref in created or ref in owners}
    await store.add_made(
        session, session.scope, set_name, {_mention(ref, reader) for ref in ours} - {*made}
    )
    if is_pruning:
        kept = {_mention(ref, reader) for ref in ours}
        kept |= {mention for mention in made if mention[0] == _KEPT_ON_RECORD}
        await store.forget_made(session, session.scope, set_name, {*made} - kept)
    return Applied(changes=changes, leftovers=[] if is_pruning else leftovers)


async def export(
    session: ReadSession, kinds: Iterable[Kind], *, set_name: str | None
) -> dict[str, object]:
    """Return a document of what is there, which applied changes nothing. It holds no secret.

    Args:
        session: Where from; of the platform.
        kinds: What there is of each section.
        set_name: Only what this set of files made; everything without. Keys that belong to people
            are left out: they come and go with them.

    Raises:
        PenstockError: `EXPORT_TOO_LARGE`.
    """
    reader = Reader(session, kinds)
    if set_name is not None:
        await reader.read_ids(await store.list_made(session, session.scope, set_name))
    elif not await reader.read_all(MAX_EXPORTED_OBJECTS):
        raise PenstockError(EXPORT_TOO_LARGE)
    return to_document(
        {
            ref: members
            for ref, members in reader.members.items()
            if members.get("service_account") != OF_A_MEMBER
        }
    )


def _refs_of(made: Sequence[Mention], reader: Reader) -> Iterator[Ref]:
    """Yield the objects among those with ids that are still in use."""
    for section, object_id in made:
        ref = reader.find_in_use((section, object_id))
        if ref is not None and not (section == _KEPT_ON_RECORD and reader.members[ref][_DISABLED]):
            yield ref


def _mention(ref: Ref, reader: Reader) -> Mention:
    return ref.section, reader.names.id(ref.section, *ref.identity)


async def _find_own(hands: Hands, leftovers: Sequence[Ref], reader: Reader) -> list[Ref]:
    """Return those that no other set has made, or has in common, as well."""
    mentions = {ref: _mention(ref, reader) for ref in leftovers}
    sets = await store.list_sets(
        hands.session, hands.session.scope, {object_id for _, object_id in mentions.values()}
    )
    return [ref for ref, mention in mentions.items() if len(sets[mention]) == 1]


async def _list_owners(
    session: ReadSession, wanted: Mapping[Ref, Wanted], reader: Reader
) -> set[Ref]:
    """Return the objects that were made by an application, of whatever set."""
    mentions = {
        _mention(ref, reader): ref
        for ref in wanted
        if reader.names.find_id(ref.section, *ref.identity) is not None
    }
    sets = await store.list_sets(session, session.scope, {one for _, one in mentions})
    return {ref for mention, ref in mentions.items() if mention in sets}


async def _make(hands: Hands, change: Change, wanted: Wanted | None, reader: Reader) -> None:
    """Make one change.

    Raises:
        PlatformFileError: The room that it belongs to refused it.
    """
    try:
        await _dispatch(hands, change, wanted, reader)
    except PenstockError as error:
        if error.error in _DENIALS or error.error.status >= _SERVER_FAULT:
            raise
        sentence = f"cannot be {change.action}d: {error}"
        if wanted is not None:
            finding = wanted.finding((), f"{sentence}; {error.error.caller_action}")
        else:
            name = " / ".join(part for part in change.ref.identity if part is not None)
            problem = f"{change.ref.kind} {name} {sentence}; {error.error.caller_action}"
            finding = Finding("document", Mark(), change.ref.section, problem)
        raise PlatformFileError([finding], DOCUMENT_INVALID) from None


async def _dispatch(hands: Hands, change: Change, wanted: Wanted | None, reader: Reader) -> None:
    kind, names, (section, identity) = reader.kinds[change.ref.section], reader.names, change.ref
    if change.action == "create" and wanted is not None:
        names.learn(section, identity, await kind.create(hands, names, identity, wanted))
        return
    object_id = names.id(section, *identity)
    if change.action == "update" and kind.update is not None:
        await kind.update(hands, names, object_id, change)
    elif change.action == "rotate" and kind.rotate is not None and wanted is not None:
        await kind.rotate(hands, object_id, wanted)
    elif change.action == "delete":
        await kind.delete(hands, object_id)
