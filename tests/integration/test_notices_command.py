"""`penstock notices` against the real control plane."""

from pathlib import Path

import httpx
from tests.fakes.control_api import run, run_json
from tests.fakes.control_server import serving_control
from tests.unit.metering.usage_events import make_body, make_event


def test_notices_go_on_behind_a_cursor(sqlite_template: Path, tmp_path: Path) -> None:
    """A reader that keeps the cursor gets what came since; one that lost it gets the same again."""
    data = tmp_path / "data"
    with serving_control(sqlite_template, data) as server:
        token = (data / "secrets" / "node_token").read_text()

        def ship(number: int) -> None:
            for status in (200, 500):
                answer = httpx.post(
                    f"{server.url}/node/v1/usage",
                    content=make_body(make_event(number, status=status)),
                    headers={"authorization": f"Bearer {token}"},
                    timeout=30,
                )
                assert answer.is_success

        ship(1)
        first = run_json(server, "notices")
        assert [one["topic"] for one in first] == ["usage.quarantined"]
        assert run_json(server, "notices") == first
        ship(2)
        (second,) = run_json(server, "notices", "--after", first[-1]["cursor"])
        assert second["payload"] == {"count": 1, "event_ids": [make_event(2).event_id]}
        assert run_json(server, "notices", "--after", second["cursor"]) == []
        nothing = run(server, "notices", "--after", second["cursor"]).stdout
        assert nothing == "There are no notices.\n"
        shown = run(server, "notices").stdout
        assert shown.count("usage.quarantined") == 2
        assert run(server, "notices", "--after", "made-up").exit_code == 1
