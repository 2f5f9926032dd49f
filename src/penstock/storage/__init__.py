"""The database: sessions that say whether they write, the base of all tables, migrations."""
