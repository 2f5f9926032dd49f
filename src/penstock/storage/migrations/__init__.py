"""Alembic's folder; `penstock.storage.migrate` is the way in."""
