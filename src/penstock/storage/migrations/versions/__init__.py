"""One module a schema change, numbered, never edited after a release."""
