"""What nodes are told of credentials: the sealed ones, and which are an organization's own.

That an organization has a credential of its own for an upstream is told whatever state it is in:
one that does not open must not be replaced, silently, by the platform's.
"""

from collections.abc import Iterable

from penstock.catalog.credentials import store
from penstock.catalog.credentials.model import CredentialState, KeptCredential
from penstock.catalog.tables import Credentials
from penstock.contract.snapshot import SealedCredential, WrappedDek
from penstock.contract.snapshot_store import own_credential_record, sealed_record
from penstock.storage.sessions import ReadSession

Records = dict[bytes, bytes]


async def list_changed(
    session: ReadSession, object_ids: Iterable[str]
) -> tuple[Records, set[bytes]]:
    """Return the records that nodes shall have of changed credentials, and names of those to go.

    Args:
        session: Where from.
        object_ids: As the change feed names them: the id of a credential, and for one that was
            deleted, and was an organization's own, organization and upstream behind it.
    """
    gone: set[bytes] = set()
    ids = []
    for object_id in object_ids:
        credential_id, *place = object_id.split("\n")
        ids.append(credential_id)
        gone.add(b"e" + credential_id.encode())
        if place:
            gone.add(own_credential_record(place[0], place[1], "")[0])
    rows = await store.list_for_feed(session, session.scope, Credentials.id.in_(ids))
    puts = _records(rows)
    return puts, gone - puts.keys()


async def list_page(session: ReadSession, after_id: str, limit: int) -> tuple[Records, str]:
    """Return the records of credentials behind one, by id, and where to go on; "" at the end."""
    rows = await store.list_for_feed(session, session.scope, Credentials.id > after_id, limit=limit)
    return _records(rows), rows[-1][0].id if len(rows) == limit else ""


def _records(rows: Iterable[tuple[KeptCredential, str, str | None]]) -> Records:
    records: Records = {}
    for kept, state, upstream in rows:
        organization_id = kept.credential.identity.organization_id
        if upstream is not None and organization_id is not None:
            name, value = own_credential_record(organization_id, upstream, kept.id)
            records[name] = value
        if state == CredentialState.ACTIVE and is_whole(kept):
            name, value = sealed_record(_seal(kept))
            records[name] = value
    return records


def is_whole(kept: KeptCredential) -> bool:
    """Tell whether a row holds what a row holds; SQLite lets anybody write anything by hand."""
    kek = kept.dek.wrapped.kek
    texts = (kept.id, kept.credential.identity.provider, kept.dek.id, kek.uri)
    numbers = (kept.credential.aad_version, kek.number)
    return (
        all(isinstance(text, str) for text in texts)
        and all(isinstance(number, int) for number in numbers)
        and isinstance(kept.credential.identity.organization_id, str | None)
    )


def _seal(kept: KeptCredential) -> SealedCredential:
    identity, sealed = kept.credential.identity, kept.credential.sealed
    wrapped = kept.dek.wrapped
    return SealedCredential(
        id=identity.credential_id,
        organization=identity.organization_id,
        provider=identity.provider,
        aad_version=kept.credential.aad_version,
        nonce=sealed.nonce,
        ciphertext=sealed.ciphertext,
        dek=WrappedDek(
            id=kept.dek.id,
            kek_uri=wrapped.kek.uri,
            kek_version=wrapped.kek.number,
            ciphertext=wrapped.ciphertext,
        ),
    )
