"""Usage, costs and FOCUS rows as files, written while they are read."""
