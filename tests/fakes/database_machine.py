"""State machines whose examples share a database, and how one is tried."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, ClassVar, TypeVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test
from tests.fakes.budget_rig import make_price
from tests.fakes.effort import tries
from tests.fakes.organizations import ALL, NOW_US

from penstock.rating import store
from penstock.storage.database import Database

Value = TypeVar("Value")


class DatabaseMachine(RuleBasedStateMachine):
    """What happens to a database.

    Attributes:
        database: Shared by all examples.
        runner: Runs everything.
    """

    database: ClassVar[Database]
    runner: ClassVar[asyncio.Runner]

    def run(self, work: Coroutine[Any, Any, Value]) -> Value:
        """Run a coroutine on the loop of all examples."""
        return self.runner.run(work)


def try_machine(
    machine: type[DatabaseMachine],
    open_database: Callable[[], AbstractAsyncContextManager[Database]],
    *,
    examples: int,
    steps: int,
) -> None:
    """Let happen what a machine has, on a database in which the alias `small` has a price.

    Args:
        machine: Which.
        open_database: Hands out an empty database.
        examples: How often from the beginning.
        steps: How many things happen each time at most.
    """
    chosen = settings(
        max_examples=tries(examples),
        stateful_step_count=steps,
        suppress_health_check=list(HealthCheck),
        # To shrink a case takes many times as long as to find it, on a real database.
        phases=(Phase.explicit, Phase.reuse, Phase.generate),
    )
    with asyncio.Runner() as runner:
        context = open_database()
        machine.runner, machine.database = runner, runner.run(context.__aenter__())
        try:
            runner.run(add_price(machine.database))
            run_state_machine_as_test(machine, settings=chosen)
        finally:
            runner.run(context.__aexit__(None, None, None))


async def add_price(database: Database) -> None:
    """Have `small` cost something."""
    async with database.write(ALL) as session:
        await store.make_default_book(session, ALL, "list", "EUR", NOW_US)
        await store.prices.insert(session, ALL, make_price("small"))
