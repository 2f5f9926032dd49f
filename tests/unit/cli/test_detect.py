"""Which kind of server one is."""

import json

import pytest
from tests.fakes.control_api import FakeControl, run
from tests.fakes.emulator_process import running_emulator

from penstock.engines.detecting import detect_provider
from penstock.engines.registry import ENGINES


def _models(*owners: str) -> dict[str, object]:
    return {"object": "list", "data": [{"id": "m", "owned_by": owner} for owner in owners]}


@pytest.mark.parametrize(
    ("answers", "provider"),
    [
        *(
            ({"/v1/models": _models(each.owned_by), "/live": {"status": "live"}}, each.name)
            for each in ENGINES.values()
            if each.owned_by
        ),
        ({"/v2": {"name": "triton", "version": "2.51.0"}}, "triton"),
        ({"/v1/metadata": {"version": "1"}, "/v1/models": _models("vllm")}, "nim"),
        ({"/v1/models": _models("nvidia")}, None),
        ({"/v1/models": _models("somebody")}, None),
        ({"/v1/models": _models("vllm", "sglang")}, None),
        ({"/v1/models": {"data": [7, {"owned_by": None}, {"owned_by": []}, {}]}}, None),
        ({"/v1/models": {"data": 7}, "/v2": {"name": "other"}}, None),
        ({"/v1/models": [], "/v2": []}, None),
        ({}, None),
    ],
)
def test_servers_are_known_by_what_they_say(
    answers: dict[str, object], provider: str | None
) -> None:
    """One that says nothing, or what is said by several, is not guessed at."""
    assert detect_provider(answers.get) == provider


def test_the_command_asks_a_server(plane: FakeControl) -> None:
    """It prints the provider, and ends with 1 where there is nobody to ask."""
    with running_emulator("m") as url:
        found = run(plane, "engines", "detect", url, "--json")
        assert json.loads(found.stdout) == {"provider": "emulator"}
        assert "emulator: " in run(plane, "engines", "detect", url).stdout
    gone = run(plane, "engines", "detect", url)
    assert gone.exit_code == 1
    assert "does not answer" in gone.output
