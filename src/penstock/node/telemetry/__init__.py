"""What the agent sends to a collector by OTLP: spans of requests that have ended, and metrics."""
