"""Key-encryption keys: what wraps data keys, and where it is kept."""
