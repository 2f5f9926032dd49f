"""Endpoints that engines register themselves, with leases that they renew."""
