"""The commands against the real control plane: what both say of each other cannot drift apart."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.control_api import run, run_json
from tests.fakes.control_server import ControlServer, serving_control


@pytest.fixture
def control(sqlite_template: Path, tmp_path: Path) -> Iterator[ControlServer]:
    """A control plane without any objects."""
    with serving_control(sqlite_template, tmp_path / "data") as server:
        yield server


def test_what_scripts_rely_on(control: ControlServer) -> None:
    """Each command that scripts rely on prints one object with the members that they read."""
    (organization,) = run_json(control, "orgs", "create", "acme")
    (project,) = run_json(control, "projects", "create", "chat", "--org", "acme")
    assert project["organization_id"] == organization["id"]
    (made,) = run_json(control, "keys", "create", "--project", "chat", "--name", "ci")
    (rotated,) = run_json(control, "keys", "rotate", made["id"], "--grace", "60s")
    assert rotated["id"] == made["id"]
    for secret in (made["secret"], rotated["secret"]):
        assert secret.startswith(f"ps_live_{made['id']}_")
    assert made["secret"] != rotated["secret"]
    assert run(control, "keys", "revoke", made["id"], "--yes").exit_code == 0
    (shown,) = run_json(control, "keys", "show", made["id"])
    assert shown["revoked_at"] is not None
    assert "secret" not in shown


def test_residency(control: ControlServer) -> None:
    """Organizations and projects are renamed, narrowed and opened again."""
    run_json(control, "orgs", "create", "acme")
    run_json(control, "projects", "create", "chat", "--org", "acme")
    for noun, name in (("projects", "chat"), ("orgs", "acme")):
        narrow = ("--data-class", "eu_only", "--region", "eu-de", "--region", "eu-fr")
        (row,) = run_json(control, noun, "update", name, *narrow)
        assert row["allowed_data_classes"] == ["eu_only"]
        assert row["allowed_regions"] == ["eu-de", "eu-fr"]
        assert "eu-de, eu-fr" in run(control, noun, "show", name).stdout
        (row,) = run_json(control, noun, "update", name, "--all-regions", "--name", "other")
        assert (row["name"], row["allowed_regions"]) == ("other", None)
        assert row["allowed_data_classes"] == ["eu_only"]


def _add_upstream(control: ControlServer, name: str, *more: str) -> dict[str, Any]:
    words = ("--endpoint", f"http://{name}:8000", *more)
    (row,) = run_json(control, "upstreams", "create", name, *words)
    return row


def test_an_upstream(control: ControlServer) -> None:
    """An upstream has what its options said, and loses what `none` takes away."""
    row = _add_upstream(
        control,
        "gpu",
        *("--endpoint", "http://b:8000", "--provider", "vllm", "--region", "eu-de"),
        *("--data-class", "eu_only", "--credential", "env:VLLM_KEY", "--header", "x-trace-*"),
        *("--max-connections", "10", "--tls-ca-file", "/etc/ca.pem"),
        *("--timeout-ms-connect", "1000", "--timeout-ms-idle", "2000"),
    )
    said = {
        "name": "gpu",
        "provider": "vllm",
        "endpoints": ["http://gpu:8000", "http://b:8000"],
        "region": "eu-de",
        "data_class": "eu_only",
        "credential_id": None,
        "credential_reference": "env:VLLM_KEY",
        "forward_headers": ["x-trace-*"],
        "max_connections": 10,
        "tls_ca_file": "/etc/ca.pem",
        "timeouts": {"connect_ms": 1000, "idle_ms": 2000},
        "is_disabled": False,
    }
    assert row.items() >= said.items()
    assert run_json(control, "upstreams", "list", "--region", "eu-de") == [row]
    assert run_json(control, "upstreams", "list", "--data-class", "none") == []

    none = [f"--{name}=none" for name in ("region", "data-class", "credential", "header")]
    changes = ("--tls-ca-file", "none", "--timeout-ms-idle", "3000", *none)
    (row,) = run_json(control, "upstreams", "update", "gpu", *changes)
    said |= dict.fromkeys(("region", "data_class", "credential_reference", "tls_ca_file"))
    said |= {"forward_headers": [], "timeouts": {"connect_ms": 1000, "idle_ms": 3000}}
    assert row.items() >= said.items()
    (row,) = run_json(control, "upstreams", "disable", "gpu")
    assert row["is_disabled"] is True
    assert "env:" not in run(control, "upstreams", "show", "gpu").stdout


def test_the_way_to_a_model(control: ControlServer) -> None:
    """From deployments to grants, all is made, shown with names, changed, and deleted in order."""
    _add_upstream(control, "gpu")
    for name in ("a", "b"):
        words = ("--upstream", "gpu", "--model", "m/x", "--max-output-tokens", "9")
        (row,) = run_json(control, "deployments", "create", name, *words, "--continuous-usage")
        assert (row["max_output_tokens"], row["continuous_usage"]) == (9, True)
    run_json(control, "deployments", "update", "b", "--final-usage", "--model", "m/y")
    (row,) = run_json(control, "deployments", "list", "--model", "m/y", "--upstream", "gpu")
    assert (row["name"], row["continuous_usage"]) == ("b", False)

    run_json(control, "routes", "create", "spare", "--choice", "b")
    words = ("--choice", "a=3", "--choice", "b=0", "--fallback", "spare")
    run_json(control, "routes", "create", "main", *words)
    shown = run(control, "routes", "show", "main").stdout
    assert "a=3, b=0" in shown
    assert "spare" in shown
    run_json(control, "aliases", "create", "chat", "--route", "spare", "--open")
    (row,) = run_json(control, "aliases", "update", "chat", "--route", "main", "--granted")
    assert row["is_open"] is False
    assert run_json(control, "aliases", "list", "--route", "main") == [row]

    run_json(control, "orgs", "create", "acme")
    run_json(control, "projects", "create", "web", "--org", "acme")
    (wide,) = run_json(control, "grants", "create", "--alias", "chat", "--org", "acme")
    (narrow,) = run_json(control, "grants", "create", "--alias", "chat", "--project", "web")
    assert run_json(control, "grants", "list", "--alias", "chat") == [wide, narrow]
    assert run_json(control, "grants", "show", narrow["id"]) == [narrow]
    again = run(control, "grants", "create", "--alias", "chat", "--org", "acme")
    assert again.exit_code == 1

    for kind, name in (("upstreams", "gpu"), ("deployments", "a"), ("aliases", "chat")):
        refused = run(control, kind, "delete", name, "--yes")
        assert refused.exit_code == 1, refused.output
        assert "err:control:catalog:in_use" in refused.stderr
    run_json(control, *["grants", "delete", "--alias", "chat", "--org", "acme", "--yes"])
    run_json(control, *["grants", "delete", "--alias", "chat", "--project", "web", "--yes"])
    for kind, name in (
        ("aliases", "chat"),
        ("routes", "main"),
        ("routes", "spare"),
        ("deployments", "a"),
        ("deployments", "b"),
    ):
        (gone,) = run_json(control, kind, "delete", name, "--yes")
        assert gone["is_deleted"] is True
    run_json(control, "upstreams", "delete", "gpu", "--yes")
    for kind in ("upstreams", "deployments", "routes", "aliases", "grants"):
        assert run_json(control, kind, "list") == []


def test_who_is_of_an_organization(control: ControlServer) -> None:
    """An administrator of an organization sees the aliases it may use, and no upstream."""
    _add_upstream(control, "gpu")
    run_json(control, *["deployments", "create", "a", "--upstream", "gpu", "--model", "m"])
    run_json(control, *["routes", "create", "main", "--choice", "a"])
    for alias in ("chat", "secret"):
        run_json(control, "aliases", "create", alias, "--route", "main")
    run_json(control, "orgs", "create", "acme")
    run_json(control, "projects", "create", "web", "--org", "acme")
    run_json(control, "grants", "create", "--alias", "chat", "--org", "acme")
    words = ["--project", "web", "--name", "admin", "--role", "org_admin", "--scope", "admin"]
    (key,) = run_json(control, "keys", "create", *words)
    theirs = control.as_(key["secret"])
    assert [row["name"] for row in run_json(theirs, "aliases", "list")] == ["chat"]
    assert "chat" in run(theirs, "aliases", "list").stdout
    assert "chat" in run(theirs, "grants", "list").stdout
    for words in (["upstreams", "list"], ["routes", "show", "main"], ["aliases", "show", "secret"]):
        refused = run(theirs, *words)
        assert refused.exit_code == 1
        assert "Traceback" not in refused.output


def test_providers(control: ControlServer) -> None:
    """Every provider that is listed can be given to an upstream."""
    providers = [row["name"] for row in run_json(control, "providers", "list")]
    assert "vllm" in providers
    for provider in providers:
        row = _add_upstream(control, f"of-{provider}", "--provider", provider)
        assert row["provider"] == provider


def test_credentials(control: ControlServer, tmp_path: Path) -> None:
    """Credentials of the platform and of an organization live, and no answer holds a secret."""
    path = tmp_path / "secret"
    path.write_text("sk-very-secret\n")
    file = ("--secret-file", str(path))
    words = ("credentials", "create", "vllm", "--provider", "vllm", *file)
    (platform,) = run_json(control, *words)
    row = _add_upstream(control, "gpu", "--provider", "vllm", "--credential", "vllm")
    assert row["credential_id"] == platform["id"]
    assert "vllm" in run(control, "upstreams", "show", "gpu").stdout
    run_json(control, "orgs", "create", "acme")
    (own,) = run_json(control, *words, "--org", "acme", "--upstream", "gpu")
    assert own["upstream_id"] == row["id"]
    assert run_json(control, "credentials", "list", "--provider", "vllm") == [platform, own]
    assert run_json(control, "credentials", "list", "--org", "acme") == [own]

    (row,) = run_json(control, "credentials", "set", "vllm", "--org", "acme", *file)
    assert row["version"] > own["version"]
    (row,) = run_json(control, "credentials", "update", own["id"], "--name", "own")
    assert row["name"] == "own"
    for command in (("rewrap",), ("rotate",), ("rotate", "--org", "acme")):
        (report,) = run_json(control, "credentials", *command)
        assert report["is_complete"] is True
    refused = run(control, "credentials", "delete", "vllm", "--yes")
    assert refused.exit_code == 1
    assert "gpu" in refused.stderr
    run_json(control, "credentials", "delete", "own", "--org", "acme", "--yes")
    run_json(control, "upstreams", "update", "gpu", "--credential", "none")
    run_json(control, "credentials", "delete", "vllm", "--yes")
    everything = run(control, "audit", "list", "--json").stdout
    assert "credential" in everything
    assert "sk-very-secret" not in everything


def test_limits(control: ControlServer) -> None:
    """Rules are set, changed, raised, shown with their use, and removed, as scripts say it."""
    run_json(control, "orgs", "create", "acme")
    run_json(control, "projects", "create", "chat", "--org", "acme")
    (key,) = run_json(control, "keys", "create", "--project", "chat", "--name", "ci")
    for metric in ("requests", "input_tokens", "output_tokens", "tokens"):
        words = ("--key", key["id"], "--metric", metric, "--limit", "100", "--window", "60s")
        (rule,) = run_json(control, "limits", "set", *words)
        assert (rule["metric"], rule["limit"], rule["window_s"]) == (metric, 100, 60)
        assert rule["key_id"] == key["id"]
    flying = ("--key", "ci", "--metric", "concurrency", "--limit", "2")
    (rule,) = run_json(control, "limits", "set", *flying)
    assert (rule["window_s"], rule["enforcement"]) == (0, "hard")
    soft = ("--key", "ci", "--metric", "requests", "--enforcement", "soft")
    (changed,) = run_json(control, "limits", "set", *soft)
    assert (changed["limit"], changed["enforcement"]) == (100, "soft")
    raised = ("--key", "ci", "--metric", "requests", "--raise-to", "900", "--until", "2h")
    (again,) = run_json(control, "limits", "set", *raised)
    assert (again["id"], again["enforcement"]) == (changed["id"], "soft")
    assert (again["limit"], again["raised_limit"]) == (100, 900)
    (shown,) = run_json(control, "limits", "show", "--key", key["id"])
    assert {(one["metric"], one["limit_now"], one["used"]) for one in shown["data"]} == {
        ("requests", 900, None),
        ("input_tokens", 100, None),
        ("output_tokens", 100, None),
        ("tokens", 100, None),
        ("concurrency", 2, None),
    }
    assert "100 (900 until" in run(control, "limits", "show", "--key", "ci").stdout
    (listed,) = run_json(control, "limits", "list", "--project", "chat")
    assert len(listed["rules"]) == 5
    run_json(control, "limits", "remove", "--key", "ci", "--metric", "tokens")
    missing = run(control, "limits", "remove", "--key", "ci", "--metric", "tokens")
    assert missing.exit_code == 1
    assert run(control, "limits", "remove", "--key", "ci", "--all").exit_code == 2
    assert run(control, "limits", "remove", "--key", "ci", "--all", "--yes").exit_code == 0
    assert "Nothing limits key ci" in run(control, "limits", "show", "--key", "ci").stdout


BAD_LIMITS = (
    (("--limit", "0"), "out of range"),
    (("--limit", "-1"), "out of range"),
    (("--limit", "1.5"), "should be a valid integer"),
    (("--limit", "1000000000000001"), "out of range"),
    (("--limit", "5", "--window", "32d"), "out of range"),
    (("--limit", "5", "--window", "60"), "no duration"),
    (("--limit", "5", "--model", "nothing"), "no deployment has a model"),
    (("--limit", "5", "--alias", "nothing"), "there is no alias"),
    ((), "it needs a limit"),
    (("--limit", "5", "--raise-to", "9"), "go together"),
)


def test_bad_limits_are_refused(control: ControlServer, subtests: pytest.Subtests) -> None:
    """What no rule can be is refused with the reason, and nothing is set."""
    run_json(control, "orgs", "create", "acme")
    for words, reason in BAD_LIMITS:
        with subtests.test(words=words, reason=reason):
            result = run(control, "limits", "set", "--org", "acme", "--metric", "requests", *words)
            assert result.exit_code != 0
            assert reason in " ".join(result.output.split())
            assert run_json(control, "limits", "list") == []
    words = ("--metric", "concurrency", "--window", "1m")
    assert run(control, "limits", "set", "--org", "acme", *words).exit_code == 2


def test_plans(control: ControlServer) -> None:
    """A plan is made of rules, given to many, changed for all, and taken away."""
    run_json(control, "orgs", "create", "acme")
    rules = ("--rule", "requests=600", "--rule", "concurrency=20,per=key")
    (plan,) = run_json(control, "plans", "create", "gold", *rules)
    assert {(one["metric"], one["limit"], one["per"]) for one in plan["rules"]} == {
        ("requests", 600, None),
        ("concurrency", 20, "key"),
    }
    (given,) = run_json(control, "plans", "assign", "gold", "--org", "acme")
    assert given["plan_id"] == plan["id"]
    run_json(control, "plans", "update", "gold", "--rule", "requests=900/1h")
    (shown,) = run_json(control, "limits", "show", "--org", "acme")
    assert [(one["plan"], one["limit"], one["window_s"]) for one in shown["data"]] == [
        ("gold", 900, 3_600)
    ]
    assert run(control, "plans", "delete", "gold", "--yes").exit_code == 1
    assert "gold" in run(control, "limits", "list").stdout
    run_json(control, "plans", "unassign", "--org", "acme")
    assert run(control, "plans", "delete", "gold", "--yes").exit_code == 0
    bad = run(control, "plans", "create", "silver", "--rule", "requests=-1")
    assert bad.exit_code == 2


def test_budgets(control: ControlServer) -> None:
    """Prices and budgets are set, changed, shown with what is spent, and removed by scripts."""
    run_json(control, "upstreams", "create", "gpu", "--endpoint", "http://127.0.0.1:8000")
    run_json(control, "deployments", "create", "large", "--upstream", "gpu", "--model", "m")
    run_json(control, "routes", "create", "large", "--choice", "large")
    run_json(control, "aliases", "create", "large", "--route", "large", "--open")
    figures = ("--alias", "large", "--currency", "EUR", "--input", "0.15", "--output", "0.6")
    words = ("--project", "chat", "--amount", "0.05", "--currency", "EUR", "--period", "month")
    run_json(control, "orgs", "create", "acme")
    run_json(control, "projects", "create", "chat", "--org", "acme")
    (budget,) = run_json(control, "budgets", "set", *words, "--hard")
    assert (budget["amount"], budget["is_hard"]) == ("0.05", True)
    assert budget["unpriced_aliases"] == ["large"]
    (price,) = run_json(control, "prices", "set", *figures)
    assert (price["alias"], price["cached_input"]) == ("large", "0.15")
    (listed,) = run_json(control, "prices", "list", "--alias", "large")
    assert listed["id"] == price["id"]
    again = ("--project", "chat", "--currency", "EUR", "--exhausted-status", "402")
    (changed,) = run_json(control, "budgets", "set", *again, "--when-away", "refuse")
    assert changed["id"] == budget["id"]
    assert (changed["amount"], changed["is_hard"], changed["exhausted_status"]) == (
        "0.05",
        True,
        402,
    )
    assert changed["when_away"] == "refuse"
    assert "refuses when away" in run(control, "budgets", "list").stdout
    (shown,) = run_json(control, "budgets", "show", "--project", "chat")
    assert [(one["id"], one["windows"]) for one in shown["data"]] == [(budget["id"], [])]
    assert "0.05 EUR" in run(control, "budgets", "list").stdout
    assert "0.05" in run(control, "budgets", "show", "--project", "chat").stdout
    assert run_json(control, "holds") == []
    assert "No worker holds anything" in run(control, "holds").stdout
    label = ("--org", "acme", "--label", "team=search", "--currency", "EUR")
    (labelled,) = run_json(control, "budgets", "set", *label, "--amount", "50", "--hard")
    assert (labelled["label"], labelled["owner_kind"]) == ("team=search", "organization")
    (raised,) = run_json(control, "budgets", "set", *label, "--amount", "60")
    assert (raised["id"], raised["amount"]) == (labelled["id"], "60")
    assert "label team=search" in run(control, "budgets", "show", "--org", "acme").stdout
    assert run(control, "budgets", "remove", *label, "--yes").exit_code == 0
    zone = ("--project", "chat", "--currency", "EUR", "--time-zone", "Europe/Berlin")
    assert run(control, "budgets", "set", *zone).exit_code == 2
    gone = ("--project", "chat", "--currency", "EUR")
    assert run(control, "budgets", "remove", *gone).exit_code == 2
    assert run(control, "budgets", "remove", *gone, "--yes").exit_code == 0
    assert run(control, "budgets", "remove", *gone, "--yes").exit_code == 1
    assert run_json(control, "budgets", "list") == []


BAD_BUDGETS = (
    (("--amount", "0"), "out of range"),
    (("--amount", "1.0000000001"), "no decimal"),
    (("--amount", "1e3"), "no decimal"),
    (("--amount", "5", "--time-zone", "Nowhere"), "time_zone"),
    (("--amount", "5", "--alias", "nothing"), "no alias"),
    ((), "it needs an amount"),
)


def test_bad_budgets_are_refused(control: ControlServer, subtests: pytest.Subtests) -> None:
    """What no budget can be is refused with the reason, and nothing is set."""
    run_json(control, "orgs", "create", "acme")
    for words, reason in BAD_BUDGETS:
        with subtests.test(words=words, reason=reason):
            result = run(control, "budgets", "set", "--org", "acme", "--currency", "EUR", *words)
            assert result.exit_code != 0
            assert reason in " ".join(result.output.split())
            assert run_json(control, "budgets", "list") == []


def test_price_books(control: ControlServer, tmp_path: Path) -> None:
    """Contracts, costs and steps are set by scripts; what cannot be is refused and sets nothing."""
    run_json(control, "upstreams", "create", "gpu", "--endpoint", "http://127.0.0.1:8000")
    run_json(control, "deployments", "create", "large", "--upstream", "gpu", "--model", "m")
    run_json(control, "routes", "create", "large", "--choice", "large")
    run_json(control, "aliases", "create", "large", "--route", "large", "--open")
    run_json(control, "orgs", "create", "acme")
    words = ("prices", "set", "--model", "large", "--currency", "EUR")
    (listed,) = run_json(control, *words, "--input", "1.00", "--output", "2.00")
    assert (listed["input"], listed["output"], listed["book_id"]) == ("1", "2", "pbk_list_EUR")
    (book,) = run_json(
        control, "prices", "books", "create", "acme-1", "--org", "acme", "--currency", "EUR"
    )
    assert (book["kind"], book["is_used"]) == ("contract", True)
    steps = [{"price": "0.9", "up_to": 1_000_000}, {"price": "0.5"}]
    file = tmp_path / "rates.json"
    file.write_text(json.dumps({"input": {"scheme": "graduated", "tiers": steps}}))
    contract = (*words, "--book", "acme-1", "--output", "1.5", "--rates", str(file))
    (price,) = run_json(control, *contract)
    assert (price["input"], price["organization_id"]) == ("0.9", book["organization_id"])
    assert [tier["price"] for tier in price["rates"]["input"]["tiers"]] == ["0.9", "0.5"]
    cost = ("prices", "set", "--cost", "--model", "m", "--upstream", "gpu", "--currency", "USD")
    (paid,) = run_json(control, *cost, "--input", "0.1", "--output", "0.2", "--from", "2020-01-01")
    assert (paid["alias"], paid["upstream"]) == ("m", "gpu")
    file.write_text(
        '{"input": {"scheme": "volume", "tiers": [{"price": "1", "up_to": 5}, {"price": "2"}]}}'
    )
    refused = run(control, *contract[:-1], str(file), "--tier", "flex")
    assert refused.exit_code == 1
    assert "rates.input" in refused.stderr
    rows = run_json(control, "prices", "list", "--model", "large", "--book", "acme-1")
    assert [row["id"] for row in rows] == [price["id"]]
    assert len(run_json(control, "prices", "list")) == 3
    assert "acme-1" in run(control, "prices", "books", "list").stdout
    span = ("--since", "2026-05-01", "--until", "2026-07-01")
    (run_,) = run_json(control, "prices", "rerate", *span, "--book", "acme-1", "--yes")
    assert (run_["event_count"], run_["changed_count"]) == (0, 0)
    assert run_["finished_at"] is not None
    assert run_json(control, "prices", "simulate", *span, "--book", "acme-1") == []
    assert run(control, "prices", "simulate", *span[::-1], "--book", "acme-1").exit_code == 2


def test_the_page_about_prices_works(
    control: ControlServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every command of it succeeds behind those above it, with the file that it shows."""
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "set-prices.md").read_text("utf-8")
    blocks = re.findall(r"^```(sh|json|yaml)\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) > 5
    for kind, block in blocks:
        if kind != "sh":
            Path({"json": "steps.json", "yaml": "prices.yaml"}[kind]).write_text(block)
            continue
        for line in block.splitlines():
            program, *words = shlex.split(line)
            result = run(control, *words)
            assert (program, result.exit_code) == ("penstock", 0), (words, result.output)
