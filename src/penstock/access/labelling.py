"""Who may give labels, by which limits and budgets of the organization choose keys."""

from collections.abc import Mapping
from typing import Protocol

from penstock.access.errors import OPERATION_DENIED
from penstock.access.model import Principal
from penstock.audit.door import Call
from penstock.kit.errors import PenstockError
from penstock.tenancy.labels import known_labels


class PrincipalCall(Call, Protocol):
    """A call of whom it is known who it is."""

    @property
    def principal(self) -> Principal:
        """Who calls."""
        ...


def require_labeller(
    call: PrincipalCall,
    before: Mapping[str, str],
    after: Mapping[str, str],
    owner_id: str | None = None,
) -> None:
    """Check that a caller may change labels: whoever may limit what is in the organization.

    Nobody in a project may, nor anybody in the organization who may not set limits; and of what
    they carry themselves, people and machines take nothing away: a label more limits, one less
    frees.

    Args:
        call: Who wants to.
        before: What they were, of a key, a person or a machine.
        after: What they are to be.
        owner_id: The person or machine that it is, or that the key belongs to.

    Raises:
        PenstockError: `OPERATION_DENIED`.
    """
    if after == before:
        return
    if call.project_id is not None:
        message = "Labels decide about limits of the organization, which gives them."
        raise PenstockError(OPERATION_DENIED, message)
    call.check_also("limits:update")
    own = {call.principal.member_id, call.principal.service_account_id}
    if (
        owner_id is not None
        and owner_id in own
        and not known_labels(before).items() <= after.items()
    ):
        message = "These labels are your own: somebody else takes them away."
        raise PenstockError(OPERATION_DENIED, message)
