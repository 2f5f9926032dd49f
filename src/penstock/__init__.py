"""Penstock: a multi-tenant AI inference gateway."""

__version__ = "0.1.0.dev0"
