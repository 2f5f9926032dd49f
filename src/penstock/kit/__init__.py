"""Domain-free building blocks: clock, ids, errors, secrets, files."""
