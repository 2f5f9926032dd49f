"""The agent: one a node; keeps its workers alive, its configuration fresh, its usage shipped."""
