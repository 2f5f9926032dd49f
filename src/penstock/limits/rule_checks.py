"""Whether rules may be stored: by themselves, and with what they name."""

from collections.abc import Iterable

from penstock.catalog import store as catalog_store
from penstock.catalog.aliases import find_alias_by_name
from penstock.catalog.collection import ONE
from penstock.contract.limits import Limit
from penstock.kit.errors import PenstockError
from penstock.limits.errors import LIMITS_INVALID
from penstock.limits.rule_forms import list_named, read_rules
from penstock.storage.sessions import ReadSession


def parse_rules(owner_id: str, kept: object) -> tuple[Limit, ...]:
    """Return rules that may be stored.

    Raises:
        PenstockError: `LIMITS_INVALID`, with the first thing that is wrong with them.
    """
    try:
        return read_rules(owner_id, kept)
    except ValueError as error:
        raise PenstockError(LIMITS_INVALID, f"`rules`: {error}.") from None


async def check_named(
    session: ReadSession, rules: Iterable[Limit], before: Iterable[Limit] = ()
) -> None:
    """Check that the aliases and models of rules are there, as far as the session may see them.

    Args:
        session: Whose organization may use the aliases. Models are the platform's to name.
        rules: What is to be.
        before: What was: names that are gone by now may stay.

    Raises:
        PenstockError: `LIMITS_INVALID`.
    """
    (aliases, models), (old_aliases, old_models) = list_named(rules), list_named(before)
    for alias in sorted(aliases - old_aliases):
        if await find_alias_by_name(session, alias) is None:
            raise PenstockError(LIMITS_INVALID, f"`alias`: there is no alias {alias!r}.")
    for model in sorted(models - old_models):
        if session.scope.organization is not None:
            raise PenstockError(LIMITS_INVALID, "`model`: only the platform limits by model.")
        found = await catalog_store.deployments.list(session, session.scope, ONE, model=model)
        if not found.items:
            raise PenstockError(LIMITS_INVALID, f"`model`: no deployment has a model {model!r}.")
