"""The words that the emulator answers with: the same for every request, so tests know them."""

WORDS = (
    "the", "water", "runs", "through", "a", "gate", "of", "oak", "and", "turns", "one", "slow",
    "wheel", "while", "café", "lamps", "glow", "by", "the", "river", "水", "falls", "under",
    "an", "old", "bridge", "where", "two", "roads", "meet", "again", "🌊",
)  # fmt: skip
"""Some need several bytes in UTF-8, so that a relay that cuts characters shows."""


def token_text(position: int) -> str:
    """Return the text of the token at a position of an answer, counted from 0."""
    word = WORDS[position % len(WORDS)]
    return word if position == 0 else f" {word}"


def answer_text(tokens: int) -> str:
    """Return an answer of that many tokens."""
    return "".join(token_text(position) for position in range(tokens))
