"""SGLang's server."""

from penstock.engines.model import Engine, Load, Priority

SGLANG = Engine(
    name="sglang",
    title="SGLang's server",
    # `/health_generate` really generates a token, so it is not asked.
    ready_path="/ready",
    context_member="max_model_len",
    load=Load(
        path="/metrics",
        running="sglang:num_running_reqs",
        waiting="sglang:num_queue_reqs",
        cache_use="sglang:token_usage",
    ),
    errors='`{"object": "error", "message", "type", "param", "code"}`',
    priority=Priority(("priority",), is_higher_earlier=True),
    takes_cache_salt=True,
    usage_in_every_chunk=True,
    cancels="closing the connection, at once",
)
