"""Keys that read usage read costs by a scope of its own from now on; what they can do stays."""

import json
from collections.abc import Callable

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_USAGE, _COSTS = "usage:read", "costs:read"
_SCOPES = sa.JSON().with_variant(sa.Text(), "sqlite")
_KEYS = sa.table("api_keys", sa.column("id", sa.String), sa.column("scopes", _SCOPES))


def upgrade() -> None:
    """Give each key that reads usage the scope for costs, too."""
    _rewrite(lambda scopes: scopes | {_COSTS} if _USAGE in scopes else scopes)


def downgrade() -> None:
    """Have one scope open both again."""
    _rewrite(lambda scopes: scopes - {_COSTS} | {_USAGE} if _COSTS in scopes else scopes)


def _rewrite(change: Callable[[set[str]], set[str]]) -> None:
    connection = op.get_bind()
    is_text = connection.dialect.name == "sqlite"
    # Few keys read usage: the others are not brought here.
    is_meant = sa.or_(*(sa.cast(_KEYS.c.scopes, sa.Text).contains(one) for one in (_USAGE, _COSTS)))
    for key_id, kept in connection.execute(sa.select(_KEYS).where(is_meant)).all():
        scopes = sorted(change({*(json.loads(kept) if isinstance(kept, str) else kept)}))
        written = json.dumps(scopes, separators=(",", ":")) if is_text else scopes
        connection.execute(_KEYS.update().where(_KEYS.c.id == key_id).values(scopes=written))
