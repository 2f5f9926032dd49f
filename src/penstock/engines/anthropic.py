"""Whatever speaks Anthropic's Messages and nothing else that we know: Anthropic, and others."""

from penstock.engines.model import OVERLOADED, Engine

ANTHROPIC = Engine(
    name="anthropic",
    title="Anthropic, or another company that speaks its Messages",
    health_path=None,
    # Its list of models is of another form.
    models_path=None,
    overloaded_statuses=OVERLOADED | {529},
    speaks_openai=False,
    speaks_messages=True,
    key_header="x-api-key",
    fixed_headers={"anthropic-version": "2023-06-01"},
    errors='`{"type": "error", "error": {"type", "message"}}`; in a stream under 200, too',
    cancels="closing the connection",
)
