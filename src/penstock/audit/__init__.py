"""Who changed what: a chain of entries that cannot be edited unnoticed."""
