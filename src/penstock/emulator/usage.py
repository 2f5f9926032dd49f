"""The usage object of an answer, honest or not."""

from collections.abc import Callable

from penstock.emulator.settings import Behavior, UsageHabit

HUGE = 10**15
"""What the habit `huge` adds: no model writes that much."""

_ALWAYS: frozenset[UsageHabit] = frozenset(
    (
        "always",
        "twice",
        "after_done",
        "negative",
        "text",
        "huge",
        "missing",
        "null",
        "fraction",
        "flag",
        "nested",
        "parts",
    )
)
_BENDS: dict[UsageHabit, Callable[[int], object]] = {
    "negative": lambda figure: -figure - 1,
    "text": str,
    "huge": lambda figure: figure + HUGE,
    "null": lambda _: None,
    "fraction": lambda figure: figure + 0.5,
    "flag": lambda _: True,
    "nested": lambda figure: {"tokens": [figure]},
}
_SENSELESS_PARTS: dict[str, object] = {
    "prompt_tokens_details": {"cached_tokens": HUGE, "audio_tokens": -1},
    "completion_tokens_details": {"reasoning_tokens": "all", "audio_tokens": True},
    "cache_creation_input_tokens": 0.5,
}


def reports_usage(habit: UsageHabit, *, is_asked: bool) -> bool:
    """Return whether an answer holds usage at all."""
    return habit in _ALWAYS or (habit == "asked" and is_asked)


def usage_object(
    behavior: Behavior, input_tokens: int, output_tokens: int | None
) -> dict[str, object]:
    """Return the usage to report.

    Args:
        behavior: Its `usage` says how the figures are bent, its `cached_tokens` is reported as
            it is.
        input_tokens: Of the request, >= 0.
        output_tokens: So far, of all choices, >= 0; None where there are none (embeddings).
    """
    figures = {"prompt_tokens": input_tokens}
    if output_tokens is not None:
        figures["completion_tokens"] = output_tokens
    figures["total_tokens"] = input_tokens + (output_tokens or 0)
    if behavior.usage == "missing":
        return {}
    bend = _BENDS.get(behavior.usage)
    usage: dict[str, object] = dict(figures)
    if bend is not None:
        usage = {name: bend(figure) for name, figure in figures.items()}
    elif behavior.usage == "parts":
        usage |= _SENSELESS_PARTS
    if behavior.cached_tokens >= 0 or behavior.kind == "trtllm":  # which always says
        usage["prompt_tokens_details"] = {"cached_tokens": max(behavior.cached_tokens, 0)}
    return usage
