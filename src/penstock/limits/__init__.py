"""How much may be used, and leases of it."""
