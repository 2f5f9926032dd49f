"""NVIDIA Triton with its OpenAI-compatible frontend."""

from penstock.engines.model import Engine, Load

TRITON = Engine(
    name="triton",
    title="NVIDIA Triton with its OpenAI-compatible frontend",
    # The server's own readiness is true before its models are loaded.
    health_path="/health/ready",
    ready_path="/v2/models/{model}/ready",
    load=Load(
        path="/metrics",
        running='nv_trt_llm_request_metrics{request_type="scheduled"}',
        waiting='nv_trt_llm_request_metrics{request_type="waiting"}',
        cache_use='nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="fraction"}',
        port=8002,
    ),
    errors='`{"error": "text"}`; under 200, too, where a model answers more than once',
    cancels="closing the connection, for models that look",
)
