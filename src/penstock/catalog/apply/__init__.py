"""A platform file and the database made the same, in one transaction."""
