"""NVIDIA NIM: vLLM's protocol, with paths and metrics of its own."""

from penstock.engines.model import Engine, Load

NIM = Engine(
    name="nim",
    title="NVIDIA NIM",
    health_path="/v1/health/live",
    ready_path="/v1/health/ready",
    context_member="max_model_len",
    load=Load(
        path="/v1/metrics",
        running="num_requests_running",
        waiting="num_requests_waiting",
        cache_use="gpu_cache_usage_perc",
    ),
    speaks_messages=True,
    speaks_responses=True,
    errors='`{"error": {"message", "type", "param", "code"}}`, or `{"object": "error", ...}`',
    cancels="closing the connection, at once",
)
