"""llm-d's inference gateway, or another whose endpoint picker speaks as it does."""

from penstock.engines.model import Engine

LLM_D = Engine(
    name="llm_d",
    title="llm-d, or another gateway with an endpoint picker of the Inference Extension",
    # It stands for many servers, and answers for itself: models say whether one can be asked.
    health_path=None,
    context_member="max_model_len",
    # As vLLM and SGLang do, for which it mostly stands.
    speaks_messages=True,
    speaks_responses=True,
    errors="those of the servers behind it, and its own",
    # Servers that know no such thing leave it unread.
    takes_cache_salt=True,
    fairness_header="x-llm-d-inference-fairness-id",
    cancels="closing the connection, as far as the servers behind it heed that",
)
