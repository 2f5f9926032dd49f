"""vLLM's OpenAI-compatible server."""

from penstock.engines.model import Engine, Load, Operation, Priority

LORA = (
    Operation(
        name="load_lora_adapter",
        path="/v1/load_lora_adapter",
        title="Load a LoRA adapter",
        required=("lora_name", "lora_path"),
    ),
    Operation(
        name="unload_lora_adapter",
        path="/v1/unload_lora_adapter",
        title="Unload a LoRA adapter",
        required=("lora_name",),
    ),
)
"""With `VLLM_ALLOW_RUNTIME_LORA_UPDATING`."""
DEVELOPMENT = (
    Operation(
        name="sleep",
        path="/sleep",
        title="Free the GPU's memory; nothing can be asked until it is woken up",
        optional=("level", "mode"),
        is_in_query=True,
    ),
    Operation(
        name="wake_up",
        path="/wake_up",
        title="Take the GPU's memory again",
        optional=("tags",),
        is_in_query=True,
    ),
    Operation(
        name="reset_prefix_cache", path="/reset_prefix_cache", title="Forget cached prefixes"
    ),
)
"""With `VLLM_SERVER_DEV_MODE`."""
VLLM = Engine(
    name="vllm",
    title="vLLM's server",
    owned_by="vllm",
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
    # In plain answers of chat and completions; it makes all of its metrics for that.
    reports_load=True,
    speaks_messages=True,
    speaks_responses=True,
    errors='`{"error": {"message", "type", "param", "code"}}`; in a stream under 200, too',
    # Anything but 0 is an error where the scheduler has no priorities.
    priority=Priority(("priority",), is_higher_earlier=False),
    takes_cache_salt=True,
    session_header="x-session-id",
    usage_in_every_chunk=True,
    audio_usage_field="stream_include_usage",
    operations=(*DEVELOPMENT, *LORA),
    cancels="closing the connection, at once",
)
