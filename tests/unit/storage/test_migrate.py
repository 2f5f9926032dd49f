"""Which revision is the newest, told without loading the migrations."""

from alembic.script import ScriptDirectory

from penstock.storage import migrate


def test_the_newest_revision_is_alembics_head() -> None:
    """Names of migrations tell the revision that Alembic finds in them."""
    config = migrate.configure()
    assert migrate.newest_revision() == ScriptDirectory.from_config(config).get_current_head()
