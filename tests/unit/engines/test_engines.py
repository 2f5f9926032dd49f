"""What is known of model servers holds together."""

import pytest

from penstock.catalog.rules import PROVIDERS
from penstock.engines.isolation import IDENTIFYING, STEERING
from penstock.engines.model import Engine
from penstock.engines.registry import ENGINES, engine_of
from penstock.gateway.dialects.openai import OPERATIONS

EACH = pytest.mark.parametrize("engine", ENGINES.values(), ids=list(ENGINES))


def test_providers_are_the_engines() -> None:
    """What the configuration may name is what is known, and the other way round."""
    assert list(PROVIDERS) == list(ENGINES)


def test_an_unknown_provider_is_openai_compatible() -> None:
    """A name from a newer version of the control plane is no failure of a node."""
    assert engine_of("from-the-future").name == "openai_compatible"


@EACH
def test_paths_are_paths(engine: Engine) -> None:
    """Every path is one, and names nothing but the model."""
    paths = [engine.health_path, engine.ready_path, engine.models_path, *engine.never_polled]
    for path in filter(None, paths):
        assert path.startswith("/")
        assert "{" not in path.replace("{model}", "")


@EACH
def test_paths_of_operations_are_of_operations_that_there_are(engine: Engine) -> None:
    """What a kind of server has elsewhere is something that callers can ask for."""
    assert {path.encode() for path in engine.paths} <= set(OPERATIONS)
    assert all(path.startswith("/") for path in engine.paths.values())


@EACH
def test_what_changes_by_being_read_is_not_read(engine: Engine) -> None:
    """No path that is asked is one of those whose readers take from each other."""
    asked = {engine.health_path, engine.ready_path, engine.models_path}
    asked |= {engine.load.path} if engine.load else set()
    assert asked.isdisjoint(engine.never_polled)


@EACH
def test_what_servers_are_steered_by_is_not_passed(engine: Engine) -> None:
    """Whatever member tells a server the priority, no caller's own gets there."""
    if engine.priority is not None:
        assert engine.priority.path[0] in STEERING
    assert STEERING.isdisjoint(IDENTIFYING)
