"""vLLM's OpenAI-compatible server."""

from penstock.engines.model import Engine, Load, Priority

VLLM = Engine(
    name="vllm",
    title="vLLM's server",
    context_member="max_model_len",
    paths={
        "/v1/classify": "/classify",
        "/v1/tokenize": "/tokenize",
        "/v1/detokenize": "/detokenize",
    },
    load=Load(
        path="/metrics",
        running="vllm:num_requests_running",
        waiting="vllm:num_requests_waiting",
        cache_use="vllm:kv_cache_usage_perc",
    ),
    errors='`{"error": {"message", "type", "param", "code"}}`; in a stream under 200, too',
    # Anything but 0 is an error where the scheduler has no priorities.
    priority=Priority(("priority",), is_higher_earlier=False),
    takes_cache_salt=True,
    session_header="x-session-id",
    usage_in_every_chunk=True,
    audio_usage_field="stream_include_usage",
    cancels="closing the connection, at once",
)
