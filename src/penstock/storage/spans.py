"""Stretches of time that a statement is given to read: one text or array, however many there are.

So the statement is the same for any number of them, and is put together once.
"""

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import CTE, bindparam, column, func, select
from sqlalchemy.dialects.postgresql import ARRAY

from penstock.storage.base import Timestamp


def spans(listed: Sequence[tuple[int, int]], *, is_postgresql: bool) -> CTE:
    """Return a table of them: `first`, and `behind` where each ends.

    Args:
        listed: From when to when each is.
        is_postgresql: Which kind of database reads it.
    """
    kind = Timestamp()
    found: Any
    if is_postgresql:
        ends = (bindparam(None, list(times), ARRAY(kind)) for times in zip(*listed, strict=True))
        columns = column("first", kind), column("behind", kind)
        read = func.unnest(*ends).table_valued(*columns).render_derived()
        found = select(read.c.first, read.c.behind)
    else:
        read = func.json_each(json.dumps(listed)).table_valued("value")
        found = select(
            func.json_extract(read.c.value, "$[0]", type_=kind).label("first"),
            func.json_extract(read.c.value, "$[1]", type_=kind).label("behind"),
        )
    cte: CTE = found.cte("stretch")
    # SQLite would read the text again for each row that it finds.
    return cte if is_postgresql else cte.prefix_with("MATERIALIZED")
