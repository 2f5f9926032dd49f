"""Notices: what others must be told, stored with what it tells of."""
