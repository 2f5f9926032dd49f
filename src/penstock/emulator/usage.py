"""The usage object of an answer, honest or not."""

from penstock.emulator.settings import Behavior, UsageHabit

HUGE = 10**15
"""What the habit `huge` adds: no model writes that much."""

_ALWAYS: frozenset[UsageHabit] = frozenset(
    ("always", "twice", "after_done", "negative", "text", "huge", "missing")
)


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
    usage: dict[str, object]
    match behavior.usage:
        case "missing":
            return {}
        case "negative":
            usage = {name: -figure - 1 for name, figure in figures.items()}
        case "text":
            usage = {name: str(figure) for name, figure in figures.items()}
        case "huge":
            usage = {name: figure + HUGE for name, figure in figures.items()}
        case _:
            usage = dict(figures)
    if behavior.cached_tokens >= 0:
        usage["prompt_tokens_details"] = {"cached_tokens": behavior.cached_tokens}
    return usage
