"""TensorRT-LLM's own server."""

from penstock.engines.model import Engine, Load

TRTLLM = Engine(
    name="trtllm",
    title="TensorRT-LLM's server, `trtllm-serve`",
    owned_by="tensorrt_llm",
    load=Load(
        path="/prometheus/metrics",
        running="trtllm_num_requests_running",
        waiting="trtllm_num_requests_waiting",
        cache_use="trtllm_kv_cache_utilization",
    ),
    never_polled=("/metrics", "/perf_metrics", "/kv_cache_events"),
    speaks_messages=True,
    speaks_responses=True,
    errors='`{"object", "message", "type", "param", "code"}`, or `{"error": "text"}`',
    takes_cache_salt=True,
    cancels="closing the connection, within a second or two",
)
