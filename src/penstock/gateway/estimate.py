"""How many tokens a request will use, by what others like it used. Pure."""

from collections import deque

from penstock.gateway.demand import Demand
from penstock.gateway.limits import (
    BYTES_PER_TOKEN,
    HABITS,
    OUTPUTS_REMEMBERED,
    UNSEEN_OUTPUT_TOKENS,
)

_WEIGHT = 0.05
_RENEWED_EVERY = 50
_QUANTILE = 0.95


class Habit:
    """What requests of one organization for one alias used: input by size, and output."""

    __slots__ = ("_new", "_outputs", "_tokens_per_byte", "usual_output")

    def __init__(self) -> None:
        """Begin with what a token is taken to be, and no idea of the output."""
        self._tokens_per_byte = 1 / BYTES_PER_TOKEN
        self._outputs: deque[int] = deque(maxlen=OUTPUTS_REMEMBERED)
        self._new = 0
        self.usual_output: int | None = None
        """95 of 100 requests wrote no more; None when none was seen."""

    def estimate(self, demand: Demand, most: int) -> tuple[int, int]:
        """Return how many input and output tokens a request will use; input >= 1.

        Args:
            demand: What it asks for.
            most: What the deployment gives at most, for each answer.
        """
        inputs = int(demand.body_bytes * self._tokens_per_byte) + 1
        cap = demand.cap
        if cap is None or cap > most:
            cap = most
        usual = self.usual_output
        if usual is None:
            return inputs, min(cap, UNSEEN_OUTPUT_TOKENS) * demand.answers
        outputs = cap * demand.answers
        return inputs, min(usual, outputs)

    def learn(self, body_bytes: int, input_tokens: int, output_tokens: int) -> None:
        """Take in what a request really used."""
        outputs = self._outputs
        ratio, known = input_tokens / (body_bytes or 1), self._tokens_per_byte
        self._tokens_per_byte = known + _WEIGHT * (ratio - known) if outputs else ratio
        outputs.append(output_tokens)
        self._new += 1
        if self._new >= _RENEWED_EVERY or len(outputs) < _RENEWED_EVERY:
            self._new = 0
            self.usual_output = sorted(outputs)[int(len(outputs) * _QUANTILE)]


class Habits:
    """The habits of all organizations that this worker lately served."""

    def __init__(self) -> None:
        """Begin with none."""
        self._known: dict[tuple[str, str], Habit] = {}

    def get(self, organization: str, alias: str) -> Habit:
        """Return an organization's habit for an alias."""
        name = (organization, alias)
        habit = self._known.get(name)
        if habit is None:
            if len(self._known) >= HABITS:
                self._known.clear()
            habit = self._known[name] = Habit()
        return habit
