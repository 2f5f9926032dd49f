"""Whose figures a caller may see: what a tenant names must be theirs."""

from penstock.access.service import get_key
from penstock.audit.door import Call
from penstock.storage.sessions import ReadSession
from penstock.tenancy.service import get_project


async def narrow(
    call: Call,
    session: ReadSession,
    *,
    organization: str | None,
    project: str | None,
    key_id: str | None,
) -> str | None:
    """Check that what a caller asks for is theirs, and return the project that is meant, if any.

    What is not theirs is looked for like what is missing, and no event of others is touched to
    find out. The operator may name what nobody manages here.

    Raises:
        PenstockError: `OBJECT_UNKNOWN`, `OPERATION_DENIED`.
    """
    project = project or call.project_id
    call.check(organization_id=organization, project_id=project)
    if call.organization_id is not None:
        if project is not None:
            await get_project(session, project)
        if key_id is not None:
            key = await get_key(session, key_id)
            call.check(project_id=key.project_id)
    return project
