"""The worker: the hot path and nothing else, one file a step of a request's way."""
