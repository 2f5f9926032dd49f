"""Usage events: stored once each, listed and added up."""
