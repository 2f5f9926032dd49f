"""All kinds of model servers, by the provider's name in the configuration."""

from penstock.engines.anthropic import ANTHROPIC
from penstock.engines.dynamo import DYNAMO
from penstock.engines.emulator import EMULATOR
from penstock.engines.llama_cpp import LLAMA_CPP
from penstock.engines.llm_d import LLM_D
from penstock.engines.model import Engine
from penstock.engines.nim import NIM
from penstock.engines.openai_compatible import OPENAI_COMPATIBLE
from penstock.engines.sglang import SGLANG
from penstock.engines.triton import TRITON, TRITON_OPENAI
from penstock.engines.trtllm import TRTLLM
from penstock.engines.vllm import VLLM

ENGINES: dict[str, Engine] = {
    engine.name: engine
    for engine in (
        OPENAI_COMPATIBLE,
        VLLM,
        SGLANG,
        TRTLLM,
        TRITON,
        TRITON_OPENAI,
        DYNAMO,
        LLM_D,
        NIM,
        LLAMA_CPP,
        ANTHROPIC,
        EMULATOR,
    )
}

NO_ROOM = frozenset().union(*(engine.overloaded_statuses for engine in ENGINES.values()))
"""What any of them answers for want of room: behind one address there may be several kinds."""


def engine_of(provider: str) -> Engine:
    """Return what is known of a provider; one that is not known is OpenAI-compatible."""
    return ENGINES.get(provider, OPENAI_COMPATIBLE)
