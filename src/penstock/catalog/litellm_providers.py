"""What LiteLLM's provider prefixes mean here: `hosted_vllm/`, `openai/`, `azure/`, ..."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class LitellmProvider:
    """A provider that is reached by OpenAI's `/v1` operations with a bearer token."""

    provider: str = "openai_compatible"
    """Its name in penstock.yaml."""
    base: str | None = None
    """Where it is when `api_base` is not given: what comes before `/v1`."""
    key_variable: str | None = None
    """The environment variable that LiteLLM takes the key from when `api_key` is not given."""
    remark: str | None = None
    """What changes, and what to look at."""


def _hosted(base: str, key_variable: str) -> LitellmProvider:
    return LitellmProvider(base=base, key_variable=key_variable)


_OLLAMA = LitellmProvider(
    base="http://localhost:11434",
    remark="is reached by Ollama's /v1 API instead of its own; parameters of its own are ignored",
)
_OPENAI = _hosted("https://api.openai.com", "OPENAI_API_KEY")

AZURE = "azure"

PROVIDERS: dict[str, LitellmProvider] = {
    "openai": _OPENAI,
    "text-completion-openai": _OPENAI,
    "cerebras": _hosted("https://api.cerebras.ai", "CEREBRAS_API_KEY"),
    "deepseek": _hosted("https://api.deepseek.com", "DEEPSEEK_API_KEY"),
    "fireworks_ai": _hosted("https://api.fireworks.ai/inference", "FIREWORKS_API_KEY"),
    "groq": _hosted("https://api.groq.com/openai", "GROQ_API_KEY"),
    "mistral": _hosted("https://api.mistral.ai", "MISTRAL_API_KEY"),
    "nvidia_nim": _hosted("https://integrate.api.nvidia.com", "NVIDIA_NIM_API_KEY"),
    "openrouter": _hosted("https://openrouter.ai/api", "OPENROUTER_API_KEY"),
    "sambanova": _hosted("https://api.sambanova.ai", "SAMBANOVA_API_KEY"),
    "together_ai": _hosted("https://api.together.xyz", "TOGETHERAI_API_KEY"),
    "xai": _hosted("https://api.x.ai", "XAI_API_KEY"),
    "custom_openai": LitellmProvider(),
    "docker_model_runner": LitellmProvider(),
    "hosted_vllm": LitellmProvider(provider="vllm"),
    "litellm_proxy": LitellmProvider(),
    "llamafile": LitellmProvider(provider="llama_cpp", base="http://127.0.0.1:8080"),
    "lm_studio": LitellmProvider(),
    "openai_like": LitellmProvider(),
    "xinference": LitellmProvider(),
    "ollama": _OLLAMA,
    "ollama_chat": _OLLAMA,
    AZURE: LitellmProvider(
        key_variable="AZURE_API_KEY",
        remark=(
            "is reached by Azure's v1 API, which takes the deployment as the model and no "
            "api-version; look whether the resource offers it"
        ),
    ),
}

KEY_VARIABLES = {one.key_variable for one in PROVIDERS.values() if one.key_variable is not None}
"""Variables that have their meaning already, so no other key gets their name."""

OTHER_PROTOCOLS = frozenset(
    {
        "ai21", "ai21_chat", "aleph_alpha", "anthropic", "anthropic_text", "azure_ai",
        "azure_text", "baseten", "bedrock", "bedrock_converse", "cloudflare", "codestral",
        "cohere", "cohere_chat", "databricks", "deepgram", "deepinfra", "elevenlabs",
        "friendliai", "gemini", "github", "github_copilot", "huggingface", "infinity", "jina_ai",
        "nlp_cloud", "oci", "oobabooga", "palm", "perplexity", "petals", "predibase", "replicate",
        "sagemaker", "sagemaker_chat", "snowflake", "text-completion-codestral", "topaz",
        "triton", "vertex_ai", "vertex_ai_beta", "vllm", "volcengine", "voyage", "watsonx",
        "watsonx_text",
    }
)  # fmt: skip
"""Providers of LiteLLM that are reached by another protocol, path or login."""

_INFERRED = (
    (("gpt-", "o1", "o3", "o4", "chatgpt-", "text-embedding-", "ft:gpt-"), "openai"),
    (("claude",), "anthropic"),
    (("gemini",), "gemini"),
    (("command",), "cohere"),
)
"""How LiteLLM takes the provider from the beginning of a model's name."""


def split_model(model: str, named: str | None) -> tuple[str | None, str]:
    """Return LiteLLM's provider and the provider's own name of the model.

    Args:
        model: `litellm_params.model`.
        named: `litellm_params.custom_llm_provider`.

    >>> split_model("hosted_vllm/meta-llama/Llama-3.3-70B-Instruct", None)
    ('hosted_vllm', 'meta-llama/Llama-3.3-70B-Instruct')
    >>> split_model("gpt-4o", None)
    ('openai', 'gpt-4o')
    >>> split_model("meta-llama/Llama-3.3", None)
    (None, 'meta-llama/Llama-3.3')
    """
    prefix, slash, rest = model.partition("/")
    if named is not None:
        return named, rest if slash and prefix == named else model
    if slash:
        is_known = prefix in PROVIDERS or prefix in OTHER_PROTOCOLS
        return (prefix, rest) if is_known else (None, model)
    for beginnings, provider in _INFERRED:
        if model.startswith(beginnings):
            return provider, model
    return None, model
