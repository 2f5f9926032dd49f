"""Credentials of upstreams: encrypted at rest, bound to whom they belong to."""
