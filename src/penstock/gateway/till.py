"""What frequent requests draw from: taken of limits and budgets for several of them at once."""

from typing import TYPE_CHECKING

from penstock.contract.money import HoldUse
from penstock.gateway.dialects.openai_usage import Usage
from penstock.gateway.limits import LEARNT_EVERY
from penstock.gateway.money import OpenHold
from penstock.limits.allowances import Costs

if TYPE_CHECKING:
    from penstock.gateway.offer import Target
    from penstock.gateway.quota import Terms


class Till:
    """Units, each enough for one request of a kind; `teller.Teller` fills and settles it.

    A request draws one by a subtraction, and tells what it really used when it has ended. Meters
    and hold are settled with the sums, when all have ended or sooner.

    Args:
        terms: What decides about the requests.
        most: Output tokens that their deployment gives at most.
    """

    __slots__ = (
        "at_ms",
        "cap",
        "costs",
        "factors",
        "hold",
        "hold_uses",
        "inputs",
        "is_prompt",
        "lines",
        "most",
        "open",
        "outputs",
        "part",
        "rests_until_ms",
        "size",
        "spent",
        "taken",
        "target",
        "terms",
        "units",
        "unsent",
        "until_ms",
        "until_s",
    )

    def __init__(self, terms: "Terms", most: int) -> None:
        """Begin with nothing in it."""
        self.terms = terms
        self.most = most
        self.until_s = terms.until_s
        """When the terms end, in seconds since the Unix epoch."""
        self.target: Target | None = None
        """Where the latest request that drew from it is sent."""
        self.size = 1
        """How many units were put into it, or would have been."""
        self.units = 0
        """Those that nobody drew."""
        self.until_ms = 0
        """When they may not be drawn any more, and what it says is old."""
        self.rests_until_ms = 0
        """When to look again whether there is plenty of everything."""
        self.open = 0
        """Units whose requests have not ended, or that nobody drew."""
        self.taken = 0
        """Units that meters and hold are not settled with."""
        self.is_prompt = False
        """Others may wait for what it has: whatever ends is settled at once."""
        self.costs: Costs = (0, 0, 0, 0, 0)
        """What a unit takes of the meters."""
        self.at_ms = 0
        """When it was filled, in the authority's time: says in which sub-window of each."""
        self.hold: OpenHold | None = None
        self.part = 0
        """What a unit takes of the hold."""
        self.factors = (0, 0, 0, 0, 1)
        """What its requests are charged by, see `reduced_factors`."""
        self.hold_uses: tuple[HoldUse, ...] = ()
        """What each request holds."""
        self.cap: int | None = None
        """The most output tokens that are written into its requests, if so."""
        self.lines = b""
        """What callers are told of their limits."""
        # What its requests used since it was settled last.
        self.unsent = 0
        self.inputs = 0
        self.outputs = 0
        self.spent = 0

    def end(
        self, body_bytes: int, usage: Usage, *, was_sent: bool, is_typical: bool
    ) -> tuple[HoldUse, ...]:
        """Take in what a request used that drew a unit; return what it cost.

        Args:
            body_bytes: Size of its body.
            usage: What it used.
            was_sent: Whether an engine got it: else not even the request counts.
            is_typical: Whether others like it may be expected to use as much.
        """
        inputs, outputs = usage.input_tokens, usage.output_tokens
        self.open -= 1
        if was_sent:
            self.inputs += inputs
            self.outputs += outputs
            if is_typical and not self.open % LEARNT_EVERY:
                self.terms.habit.learn(body_bytes, inputs, outputs)
        else:
            self.unsent += 1
        hold = self.hold
        if hold is None:
            return ()
        request, per_input, more_cached, per_output, in_nano = self.factors
        exact = request + inputs * per_input + outputs * per_output  # as `exact_charge` has it
        if usage.cached_input_tokens:
            exact += min(usage.cached_input_tokens, inputs) * more_cached
        cost = min(-(-exact // in_nano), self.part)
        self.spent += cost
        return (HoldUse(hold.id, cost),)
