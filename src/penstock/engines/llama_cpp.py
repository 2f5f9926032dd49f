"""llama.cpp's server."""

from penstock.engines.model import Engine, Load

LLAMA_CPP = Engine(
    name="llama_cpp",
    title="llama.cpp's server",
    owned_by="llamacpp",
    paths={"/v1/tokenize": "/tokenize", "/v1/detokenize": "/detokenize"},
    load=Load(
        path="/metrics",
        running="llamacpp:requests_processing",
        waiting="llamacpp:requests_deferred",
    ),
    speaks_messages=True,
    speaks_responses=True,
    errors='`{"error": {"message", "type", "code"}}`',
    cancels="closing the connection, at once",
)
