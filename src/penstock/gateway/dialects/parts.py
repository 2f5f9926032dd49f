"""Which parts of a question are text: all others are held to be media. Pure.

Engines learn new media more quickly than we do, and a short address may stand for many tokens. So
what is named here is what has no more tokens than bytes.
"""

from typing import Final

TEXT_TYPES: Final = frozenset(
    {
        "text",
        "input_text",
        "output_text",
        "summary_text",
        "reasoning_text",
        "refusal",
        "thinking",
        "redacted_thinking",
    }
)
"""Parts that are nothing but text."""
HOLDER_TYPES: Final = frozenset(
    {
        # Messages
        "tool_use",
        "tool_result",
        "search_result",
        # Responses
        "message",
        "reasoning",
        "function_call",
        "function_call_output",
        "custom_tool_call",
        "custom_tool_call_output",
        "local_shell_call",
        "local_shell_call_output",
        "apply_patch_call",
        "apply_patch_call_output",
        "computer_call",
        "computer_call_output",
    }
)
"""Items and parts that are text but for the parts that they have, each of which is looked at."""
SOURCE_TYPES: Final = frozenset({"base64", "url", "text", "content"})
"""Where a part says that it is from: it counts, this does not once more."""
