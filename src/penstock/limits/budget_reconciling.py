"""Whether windows say what charges and holds say: they are added to, and here added up anew."""

from penstock.limits import budget_store as store
from penstock.limits.budget_model import Reconciliation, WindowKey
from penstock.storage.sessions import ReadSession

PAGE_WINDOWS = 100


async def reconcile(
    session: ReadSession, after: WindowKey | None
) -> tuple[Reconciliation, WindowKey | None]:
    """Compare a page of windows with their charges and open holds.

    Args:
        session: One state of the database.
        after: Behind which window; with the first one when None.

    Returns:
        What came of it, and where to go on; None at the end.
    """
    scope = session.scope
    windows = await store.list_windows_behind(session, scope, after, PAGE_WINDOWS)
    if not windows:
        return Reconciliation(0, []), None
    keys = [window.key for window in windows]
    charged = await store.sum_charges(session, scope, keys)
    held = await store.sum_held(session, scope, keys)
    differences = [
        window.key
        for window in windows
        if (window.settled_atto, window.held)
        != (charged.get(window.key, 0), held.get(window.key, 0))
    ]
    is_last = len(windows) < PAGE_WINDOWS
    return Reconciliation(len(windows), differences), None if is_last else keys[-1]
