"""SGLang's server."""

from penstock.engines.model import Engine, Load, Operation, Priority

SGLANG = Engine(
    name="sglang",
    title="SGLang's server",
    owned_by="sglang",
    # `/health_generate` really generates a token, so it is not asked.
    ready_path="/ready",
    context_member="max_model_len",
    load=Load(
        path="/metrics",
        running="sglang:num_running_reqs",
        waiting="sglang:num_queue_reqs",
        cache_use="sglang:token_usage",
    ),
    speaks_messages=True,
    speaks_responses=True,
    errors='`{"object": "error", "message", "type", "param", "code"}`',
    priority=Priority(("priority",), is_higher_earlier=True),
    takes_cache_salt=True,
    usage_in_every_chunk=True,
    adapter_form="{model}:{adapter}",
    operations=(
        Operation(name="flush_cache", path="/flush_cache", title="Forget cached prefixes"),
        Operation(
            name="pause_generation",
            path="/pause_generation",
            title="Stop working on requests until it goes on",
        ),
        Operation(
            name="continue_generation", path="/continue_generation", title="Go on with requests"
        ),
        Operation(
            name="release_memory_occupation",
            path="/release_memory_occupation",
            title="Free the GPU's memory; nothing can be asked until it is taken again",
        ),
        Operation(
            name="resume_memory_occupation",
            path="/resume_memory_occupation",
            title="Take the GPU's memory again",
        ),
        Operation(
            name="load_lora_adapter",
            path="/load_lora_adapter",
            title="Load a LoRA adapter",
            required=("lora_name", "lora_path"),
        ),
        Operation(
            name="unload_lora_adapter",
            path="/unload_lora_adapter",
            title="Unload a LoRA adapter",
            required=("lora_name",),
        ),
    ),
    cancels="closing the connection, at once; none is shared, so `/abort_request` is not needed",
)
