"""What of a request would steer a model server itself, or reach what is others' there. Pure."""

STEERING = frozenset(
    {
        # Which worker answers, and from whose KV cache: vLLM, SGLang, TensorRT-LLM, Dynamo.
        "bootstrap_host",
        "bootstrap_port",
        "bootstrap_room",
        "conversation_id",
        "data_parallel_rank",
        "disagg_prefill_dp_rank",
        "disaggregated_params",
        "ec_transfer_params",
        "kv_transfer_params",
        "nvext",
        "routed_dp_rank",
        # Whose prefixes it finds in the cache: ours is written there instead.
        "cache_salt",
        "extra_key",
        # Under which name it runs there, by which others could abort it.
        "request_id",
        "rid",
        # Sessions and adapters, which are named by whoever asks.
        "lora_path",
        "session_id",
        "session_params",
        # Code and settings of the server.
        "custom_logit_processor",
        "custom_params",
        "logits_processors",
        "vllm_xargs",
        # Before whom it goes there.
        "priority",
    }
)
"""Members of bodies that no caller's request brings to a server, whichever it is."""
ALWAYS_OURS = frozenset({"cache_salt", "extra_key"})
"""Those of them that nobody at all brings: others' prompts are behind them."""
IDENTIFYING = ("user", "safety_identifier", "prompt_cache_key")
"""Members by which callers name their own users and conversations: servers get a pseudonym."""
