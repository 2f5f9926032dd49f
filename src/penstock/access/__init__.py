"""API keys and who may use what."""
