"""NVIDIA Triton: by the Open Inference Protocol, and with its OpenAI-compatible frontend."""

from penstock.engines.model import Engine, Load, Operation

_LOAD = Load(
    path="/metrics",
    running='nv_trt_llm_request_metrics{request_type="scheduled"}',
    waiting='nv_trt_llm_request_metrics{request_type="waiting"}',
    cache_use='nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="fraction"}',
    # Of every backend: without TensorRT-LLM's it is all that is said.
    queued="nv_inference_pending_request_count",
    port=8002,
)
TRITON = Engine(
    name="triton",
    title="NVIDIA Triton, by the Open Inference Protocol",
    # The server's own readiness is true before its models are loaded.
    health_path="/v2/health/live",
    ready_path="/v2/models/{model}/ready",
    models_path=None,
    load=_LOAD,
    # With TensorRT-LLM's backend; without, it logs that it has nothing to say.
    reports_load=True,
    speaks_openai=False,
    speaks_oip=True,
    operations=(
        Operation(
            name="load_model",
            path="/v2/repository/models/{model}/load",
            title="Load a model, or load it anew, with `--model-control-mode=explicit`",
            required=("model",),
        ),
        Operation(
            name="unload_model",
            path="/v2/repository/models/{model}/unload",
            title="Unload a model",
            required=("model",),
        ),
        Operation(
            name="list_repository",
            path="/v2/repository/index",
            title="List the models of the repository and whether they are loaded",
        ),
    ),
    errors='`{"error": "text"}`; under 200, too, where a model answers more than once',
    cancels="closing the connection, for models that look",
)
TRITON_OPENAI = Engine(
    name="triton_openai",
    title="NVIDIA Triton with its OpenAI-compatible frontend",
    owned_by="Triton Inference Server",
    health_path="/health/ready",
    load=_LOAD,
    errors='`{"error": "text"}`; under 200, too, where a model answers more than once',
    cancels="closing the connection, for models that look",
)
