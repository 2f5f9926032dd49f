"""Whatever speaks OpenAI's protocol, and of which nothing else is known."""

from penstock.engines.model import Engine

OPENAI_COMPATIBLE = Engine(
    name="openai_compatible",
    title="Any engine or company that speaks OpenAI's protocol",
    health_path=None,
    speaks_responses=True,
    errors='`{"error": {"message", "type", "param", "code"}}`',
    cancels="closing the connection",
)
