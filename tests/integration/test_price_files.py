"""`penstock prices import` and `export` against the real control plane."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fakes.control_api import run, run_json
from tests.fakes.control_server import ControlServer, serving_control

GOOD = """\
prices:
  - model: large
    currency: EUR
    input: "0.15"
    output: "0.60"
  - model: large
    currency: EUR
    input: "0.10"
    output: "0.50"
    valid_from: 2031-01-01T00:00:00Z
  - model: org/m
    currency: EUR
    book: cost-EUR
    rates:
      input: {price: "0.1"}
      output: {price: "0.2"}
      requests: {price: "0.001"}
"""


@pytest.fixture
def control(sqlite_template: Path, tmp_path: Path) -> Iterator[ControlServer]:
    """A control plane with an alias."""
    with serving_control(sqlite_template, tmp_path / "data") as server:
        run_json(server, "upstreams", "create", "gpu", "--endpoint", "http://127.0.0.1:8000")
        run_json(server, "deployments", "create", "large", "--upstream", "gpu", "--model", "m")
        run_json(server, "routes", "create", "large", "--choice", "large")
        run_json(server, "aliases", "create", "large", "--route", "large", "--open")
        yield server


def test_a_file_comes_back_as_it_was_imported(control: ControlServer, tmp_path: Path) -> None:
    """A dry run says what would change; what is exported changes nothing, as YAML and as JSON."""
    file = tmp_path / "prices.yaml"
    file.write_text(GOOD)
    words = ("prices", "import", str(file))
    rehearsed = run(control, *words, "--dry-run")
    assert rehearsed.exit_code == 3
    assert "0.15 -> 0.1" in rehearsed.stdout
    assert run_json(control, "prices", "list") == []
    assert run(control, *words).exit_code == 0
    assert len(run_json(control, "prices", "list")) == 3
    for text in (
        run(control, "prices", "export").stdout,
        run(control, "prices", "export", "--json").stdout,
    ):
        file.write_text(text)
        same = run(control, *words, "--dry-run")
        assert (same.exit_code, "as the file says" in same.stdout) == (0, True), same.output
    (current,) = run_json(control, "prices", "export", "--current")
    assert [one.get("valid_from", "now")[:4] for one in current["prices"]] == ["now", "now", "2031"]
    file.write_text(json.dumps(current))
    assert run(control, *words, "--dry-run").exit_code == 0


def test_a_table_is_imported(control: ControlServer, tmp_path: Path) -> None:
    """CSV has a column for each member; an empty cell is none."""
    file = tmp_path / "prices.csv"
    file.write_text("model,currency,input,output,cached_input\nlarge,EUR,0.15,0.6,\n")
    assert run(control, "prices", "import", str(file)).exit_code == 0
    (price,) = run_json(control, "prices", "list")
    assert (price["input"], price["cached_input"]) == ("0.15", "0.15")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.yaml", GOOD.replace('"0.60"', "0.60"), [":5:5: prices[0].output:", ";"]),
        ("a.yaml", GOOD.replace("large", "no-such", 1), [":2:5: prices[0].model:", "create it"]),
        ("a.yaml", GOOD.replace("requests", "nothing"), [":14:5: prices[2].rates", ";"]),
        ("a.yaml", GOOD.replace("prices:", "price:"), [":1:1: price:", "remove it"]),
        ("a.yaml", "prices: [", [":1:", "valid YAML"]),
        ("a.json", '{"prices": {}}', ["prices:", "write `prices:`"]),
        ("a.csv", "model,curency\nlarge,EUR\n", [":1:1: curency:", "use model, currency"]),
        ("a.csv", "model,currency\nlarge\n", [":2:1: line:", "correct the commas"]),
        ("a.csv", "model,currency,input,output\nlarge,EUR,1,2\nlarge,EUR,-1,2\n", [":3:1:"]),
        ("none.yaml", None, ["cannot be read"]),
    ],
)
def test_a_malformed_file_changes_nothing(
    control: ControlServer, tmp_path: Path, name: str, text: str | None, said: list[str]
) -> None:
    """Its line is named, the field, and what to do."""
    file = tmp_path / name
    if text is not None:
        file.write_text(text)
    result = run(control, "prices", "import", str(file))
    assert result.exit_code == 1
    for words in said:
        assert words in result.stdout, result.output
    assert "nothing was changed" in result.stderr
    assert run_json(control, "prices", "list") == []
    assert run_json(control, "prices", "books", "list") == []
