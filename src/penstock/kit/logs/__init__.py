"""The log: declared events, one line each, in one form for all processes."""
