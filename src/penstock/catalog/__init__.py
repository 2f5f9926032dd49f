"""Upstreams, endpoints, routes, aliases."""
