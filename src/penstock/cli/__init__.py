"""The command line: one file per command group; `launch` is what `penstock dev` does."""
