"""The import from LiteLLM: what is carried, what is said about the rest, no secret in either."""

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from penstock.catalog.errors import PlatformFileError
from penstock.catalog.litellm_import import import_litellm
from penstock.catalog.litellm_model import LitellmImport, NoteKind
from penstock.catalog.model import PlatformFile
from penstock.catalog.platform_file import load_platform_file, parse

ROOT = Path(__file__).parents[3]
HOW_TO = ROOT / "docs" / "how-to" / "import-from-litellm.md"
MASTER = "general_settings: {master_key: os.environ/LITELLM_MASTER_KEY}\n"


def imported(text: str, **variables: str) -> tuple[LitellmImport, PlatformFile]:
    """Import a text and parse what comes out."""
    result = import_litellm(text, source="config.yaml", variables=variables)
    return result, parse(result.text, source="penstock.yaml", folder=Path("conf"))


def one_model(parameters: str, more: str = "") -> tuple[LitellmImport, PlatformFile]:
    """Import a file with one entry."""
    entry = f"model_list:\n- model_name: m\n  litellm_params: {{{parameters}}}\n{more}"
    return imported(entry + MASTER)


def said(result: LitellmImport, *, without: str = "master_key") -> list[str]:
    """Return the notes but for those about the master key."""
    return [str(note) for note in result.notes if without not in note.finding.where]


def upstream_of(platform: PlatformFile) -> tuple[str, tuple[str, ...], str | None]:
    """Return provider, endpoints and credential of the only upstream."""
    (entry,) = platform.upstreams
    return entry.item.provider, entry.item.endpoints, entry.item.credential


def blocks(kind: str) -> list[str]:
    """Return the blocks of a kind in the guide."""
    return re.findall(
        rf"^```{kind}\n(.*?)^```$", HOW_TO.read_text("utf-8"), re.DOTALL | re.MULTILINE
    )


def test_the_guide_shows_what_happens() -> None:
    """The example of the guide gives the file and the notes that the guide shows."""
    config, expected = blocks("yaml")
    (notes,) = blocks("text")
    result, _ = imported(config)
    assert result.text == expected
    assert "".join(f"{note}\n" for note in result.notes) == notes
    assert result.variables == ("EMBED_API_KEY", "LITELLM_MASTER_KEY", "VLLM_KEY")


def test_the_result_passes_the_whole_check(tmp_path: Path) -> None:
    """Once its variables are set, the file can be served from."""
    path = tmp_path / "penstock.yaml"
    result, _ = imported(blocks("yaml")[0])
    path.write_text(result.text)
    secrets = {f"env:{name}": f"{name}-0123456789abcdef" for name in result.variables}
    snapshot = load_platform_file(path, b"pepper", resolve_secret=secrets.__getitem__)
    assert [alias.name for alias in snapshot.aliases] == ["llama-70b", "embed", "gpt-4"]
    assert [endpoint.host for endpoint in snapshot.upstreams[0].endpoints] == ["vllm-0", "vllm-1"]


@pytest.mark.parametrize(
    ("parameters", "provider", "endpoint", "credential", "model"),
    [
        (
            "model: hosted_vllm/Org/M, api_base: 'http://h:8000/v1/'",
            "vllm", "http://h:8000", None, "Org/M",
        ),
        ("model: openai/gpt-4o", "openai_compatible", "https://api.openai.com",
         "env:OPENAI_API_KEY", "gpt-4o"),
        ("model: gpt-4o", "openai_compatible", "https://api.openai.com",
         "env:OPENAI_API_KEY", "gpt-4o"),
        ("model: gpt-4o, api_key: os.environ/MINE", "openai_compatible",
         "https://api.openai.com", "env:MINE", "gpt-4o"),
        ("model: openai/x, api_base: 'http://h:80/v1', api_key: none", "openai_compatible",
         "http://h", None, "x"),
        ("model: openai/x, base_url: 'https://[::1]:443/v1/chat/completions'",
         "openai_compatible", "https://[::1]", None, "x"),
        ("model: groq/llama-3.3", "openai_compatible", "https://api.groq.com/openai",
         "env:GROQ_API_KEY", "llama-3.3"),
        ("model: openrouter/google/gemma", "openai_compatible", "https://openrouter.ai/api",
         "env:OPENROUTER_API_KEY", "google/gemma"),
        ("model: Org/M, custom_llm_provider: openai, api_base: 'http://h/v1'",
         "openai_compatible", "http://h", None, "Org/M"),
        ("model: openai/x, custom_llm_provider: openai, api_base: 'http://h/v1'",
         "openai_compatible", "http://h", None, "x"),
        ("model: azure/dep, api_base: 'https://r.openai.azure.com/', api_key: os.environ/AZ",
         "openai_compatible", "https://r.openai.azure.com/openai", "env:AZ", "dep"),
        ("model: azure/dep, api_base: 'https://r.openai.azure.com/openai/deployments/dep'",
         "openai_compatible", "https://r.openai.azure.com/openai", "env:AZURE_API_KEY", "dep"),
        ("model: ollama/qwen3", "openai_compatible", "http://localhost:11434", None, "qwen3"),
        ("model: llamafile/m", "llama_cpp", "http://127.0.0.1:8080", None, "m"),
    ],
)  # fmt: skip
def test_providers_become_upstreams(
    parameters: str, provider: str, endpoint: str, credential: str | None, model: str
) -> None:
    """A provider that speaks OpenAI's /v1 becomes an upstream at its address with its key."""
    _, platform = one_model(parameters)
    assert upstream_of(platform) == (provider, (endpoint,), credential)
    assert platform.deployments[0].item.model == model


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ("model: anthropic/claude", "anthropic is not reached by OpenAI's /v1 operations"),
        ("model: claude-3", "anthropic is not reached by OpenAI's /v1 operations"),
        ("model: bedrock/x, aws_region_name: eu", "bedrock is not reached by"),
        ("model: foo/bar", 'the provider of "foo/bar" is not known to this import; name its'),
        ("model: hosted_vllm/m", "api_base is missing, or in a variable that is not set here"),
        ("model: azure/d", "api_base is missing"),
        ("model: openai/m, api_base: os.environ/NOT_SET", "in a variable that is not set here"),
        ("model: os.environ/NOT_SET", "model is missing, or in a variable"),
        ("api_base: 'http://h'", "model is missing"),
        ("model: 'openai/@cf/m'", "the model's name has characters that cannot be carried"),
        ("model: openai/m, api_base: 'http://u:canary@h/v1'", "holds a user name or password"),
        ("model: openai/m, api_base: 'h:8000'", "has no scheme; write http://host:port"),
        ("model: openai/m, litellm_credential_name: gone", "names nothing in credential_list"),
    ],
)
def test_what_cannot_be_carried_is_left_out_and_listed(parameters: str, words: str) -> None:
    """An entry that cannot be carried leaves nothing behind but a note with its line."""
    result, platform = one_model(parameters)
    assert not [*platform.upstreams, *platform.routes, *platform.aliases]
    notes = [note for note in result.notes if words in note.finding.problem]
    assert len(notes) == 1, said(result)
    assert notes[0].kind is NoteKind.LOST
    assert (notes[0].finding.mark.line, ";" in str(notes[0])) == (3, True)
    assert "canary" not in str(notes)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("model_name: 'openai/*'\n  litellm_params: {model: 'openai/*'}", "by a wildcard"),
        ("model_name: m", "has no model_name or no litellm_params"),
        ("litellm_params: {model: openai/m}", "has no model_name or no litellm_params"),
        ("nothing", "has no model_name or no litellm_params"),
        (
            "model_name: m\n  litellm_params: {model: o3}\n  model_info: {mode: image_generation}",
            "only chat, completions and embeddings",
        ),
        ("model_name: '***'\n  litellm_params: {model: openai/m}", "by a wildcard"),
        ("model_name: '\u00e9'\n  litellm_params: {model: openai/m}", "has no character that"),
    ],
)
def test_entries_that_are_no_deployments_are_listed(entry: str, words: str) -> None:
    """Wildcards, half entries and other operations are left out, each with a note."""
    result, platform = imported(f"model_list:\n- {entry}\n{MASTER}")
    assert platform.aliases == ()
    assert any(words in note for note in said(result)), said(result)


def test_a_pool_becomes_one_upstream() -> None:
    """Entries of one name with one model and one key are endpoints of one upstream, each once."""
    text = "model_list:\n" + "".join(
        f"- {{model_name: m, litellm_params: {{model: hosted_vllm/x, api_base: 'http://{h}/v1'}}}}\n"
        for h in ("b", "a", "B", "c")
    )
    result, platform = imported(text + MASTER)
    assert upstream_of(platform) == ("vllm", ("http://b", "http://a", "http://c"), None)
    assert said(result) == []


def choices_of(platform: PlatformFile) -> dict[str, list[tuple[str, int]]]:
    """Return the weighted deployments of every route."""
    return {
        route.item.name: [(choice.deployment, choice.weight) for choice in route.item.deployments]
        for route in platform.routes
    }


def test_a_mixed_pool_becomes_weighted_deployments() -> None:
    """A pool with several models or keys is one route; shares are those of LiteLLM's entries."""
    result, platform = imported(
        "model_list:\n"
        "- {model_name: m, litellm_params: {model: openai/small}}\n"
        "- {model_name: m, litellm_params: {model: hosted_vllm/x, api_base: 'http://a/v1'}}\n"
        "- {model_name: m, litellm_params: {model: hosted_vllm/x, api_base: 'http://b/v1'}}\n"
        "- {model_name: n, litellm_params: {model: openai/other}}\n" + MASTER
    )
    assert choices_of(platform) == {"m": [("m", 1), ("m-2", 2)], "n": [("n", 1)]}
    assert {
        entry.item.name: (entry.item.upstream, entry.item.model) for entry in platform.deployments
    } == {"m": ("openai", "small"), "m-2": ("m", "x"), "n": ("openai", "other")}
    assert {entry.item.name: entry.item.route for entry in platform.aliases} == {"m": "m", "n": "n"}
    assert said(result) == []


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        (("3", "1"), [3, 1]),
        (("0.25", "0.75"), [333, 1000]),
        (("5000", "1"), [1000, 1]),
        (("0", "2"), [0, 2]),
        (("many", "2"), [1, 2]),
        (("true", "2"), [1, 2]),
        (("-1", "2"), [1, 2]),
    ],
)
def test_weights_become_whole_numbers(weights: tuple[str, str], expected: list[int]) -> None:
    """Weights keep their proportion up to 1,000, and what is none counts as 1 and is said."""
    entries = [
        f"- {{model_name: m, litellm_params: {{model: openai/{model}, weight: {weight}}}}}\n"
        for model, weight in zip("ab", weights, strict=True)
    ]
    result, platform = imported("model_list:\n" + "".join(entries) + MASTER)
    assert [weight for _, weight in choices_of(platform)["m"]] == expected
    assert len(said(result)) == (weights[0] in {"many", "true", "-1"})


def test_fallbacks_are_carried_one_behind_the_other() -> None:
    """The first fallback of each model is kept; circles, seconds and strangers are listed."""
    models = "".join(
        f"- {{model_name: {name}, litellm_params: {{model: openai/{name}}}}}\n" for name in "abcd"
    )
    result, platform = imported(
        f"model_list:\n{models}"
        "router_settings:\n  fallbacks: [{a: [b, c]}, {b: [c]}, {c: [a]}, {b: [d]}, {x: [a]}]\n"
        "  default_fallbacks: [d, a]\n"
        "  model_group_alias: {z: a}\n" + MASTER
    )
    assert {route.item.name: route.item.fallback for route in platform.routes} == {
        "a": "b",
        "b": "c",
        "c": "d",
        "d": None,
    }
    notes = {note.split(": ")[1]: note for note in said(result)}
    assert "so the first is taken" in notes["router_settings.fallbacks[0].a"]
    assert (
        "changed: the other route is tried when connecting"
        in notes["router_settings.fallbacks[1].b"]
    )
    assert "leads back here" in notes["router_settings.fallbacks[2].c"]
    assert "lost: leads to no model" in notes["router_settings.fallbacks[3].b"]
    assert "lost: leads to no model" in notes["router_settings.fallbacks[4].x"]
    assert "so the first is taken" in notes["router_settings.default_fallbacks"]


def test_secrets_are_not_copied() -> None:
    """A key in clear becomes a reference with a name of its own, the same key the same name."""
    result, platform = imported(
        "model_list:\n"
        "- {model_name: groq, litellm_params: {model: groq/a, api_key: gsk-canary-1}}\n"
        "- {model_name: b, litellm_params: {model: groq/b, api_key: gsk-canary-1}}\n"
        "- {model_name: b2, litellm_params: {model: groq/b, api_key: gsk-canary-2}}\n"
        "- {model_name: 7up, litellm_params: {model: groq/c, api_key: 12345678}}\n"
        "- {model_name: d, litellm_params: {model: groq/d, api_key: os.environ/B_API_KEY}}\n"
        "- {model_name: e, litellm_params: {model: groq/e}}\n"
        "- {model_name: f, litellm_params: {model: groq/e, api_key: os.environ/A-B}}\n"
        "general_settings: {master_key: sk-canary-0123456789}\n"
    )
    assert [entry.item.credential for entry in platform.upstreams] == [
        "env:GROQ_API_KEY_2",
        "env:B2_API_KEY",
        "env:KEY_7UP_API_KEY",
        "env:B_API_KEY",
        "env:GROQ_API_KEY",
        "env:F_API_KEY",
    ]
    assert platform.keys[0].item.secret == "env:LITELLM_MASTER_KEY"
    everything = result.text + "".join(map(str, result.notes)) + repr(result)
    assert "canary" not in everything
    assert "12345678" not in everything
    assert sum("stands here in clear" in str(note) for note in result.notes) == 5


def test_a_short_master_key_has_to_be_a_new_one() -> None:
    """A master key that Penstock would refuse is said to be too short, and not to be kept."""
    result, _ = imported("model_list: []\ngeneral_settings: {master_key: sk-1234}\n")
    (note,) = result.notes
    assert "set LITELLM_MASTER_KEY to a new key of 16 characters or more" in str(note)
    assert "sk-1234" not in str(note)


def test_an_open_proxy_becomes_a_closed_one() -> None:
    """Without a master key nobody is let in, and that is said."""
    result, platform = imported("model_list: []\n")
    assert platform.keys == ()
    assert "write some under keys" in str(result.notes[0])


@pytest.mark.parametrize(
    ("parameters", "more", "expected"),
    [
        ("timeout: 30", "", (30_000, 30_000)),
        ("timeout: 0.0001", "", (1, 1)),
        ("", "router_settings: {timeout: 12.5}\n", (12_500, 12_500)),
        ("timeout: 5", "router_settings: {timeout: 12}\n", (5_000, 5_000)),
        ("", "litellm_settings: {request_timeout: 600}\n", (600_000, 600_000)),
        ("timeout: 1000000", "", (86_400_000, 86_400_000)),
        ("timeout: soon", "", (120_000, 3_600_000)),
        ("timeout: -1", "", (120_000, 3_600_000)),
        ("timeout: true", "", (120_000, 3_600_000)),
    ],
)
def test_time_limits_are_whole_milliseconds(
    parameters: str, more: str, expected: tuple[int, int]
) -> None:
    """Seconds become milliseconds, the nearest setting wins, and nonsense is left at defaults."""
    _, platform = one_model(f"model: openai/m, {parameters}", more)
    timeouts = platform.upstreams[0].item.timeouts
    assert (timeouts.first_byte_ms, timeouts.total_ms) == expected


def test_shared_credentials_and_variables_are_looked_up() -> None:
    """Credentials by name, addresses in variables and merged anchors are read as LiteLLM does."""
    result, platform = imported(
        "environment_variables: {BASE: 'http://own/v1', TOKEN: canary}\n"
        "credential_list:\n"
        "- credential_name: shared\n"
        "  credential_values: {api_key: os.environ/TOKEN, api_base: os.environ/BASE, x: canary}\n"
        "model_list:\n"
        "- model_name: a\n"
        "  litellm_params: &base {model: hosted_vllm/m, litellm_credential_name: shared}\n"
        "- model_name: b\n"
        "  litellm_params: {<<: *base, api_base: os.environ/OTHER}\n" + MASTER,
        BASE="http://not-this",
        OTHER="http://other/v1",
    )
    assert [entry.item.endpoints for entry in platform.upstreams] == [
        ("http://own",),
        ("http://other",),
    ]
    assert {entry.item.credential for entry in platform.upstreams} == {"env:TOKEN"}
    notes = said(result)
    assert any("environment_variables: changed: values are not copied" in note for note in notes)
    assert any("credential_values.x: lost: is not known" in note for note in notes)
    assert "canary" not in "".join(notes) + result.text


def test_second_names_are_aliases() -> None:
    """Aliases of model groups lead to the group's route, and those that lead nowhere are listed."""
    result, platform = one_model(
        "model: openai/m",
        "router_settings: {model_group_alias: {gpt-4: m, hid: {model: m, hidden: true}, "
        "gone: x, m: m, 'a b': m}}\n",
    )
    assert {entry.item.name: entry.item.route for entry in platform.aliases} == {
        "m": "m",
        "gpt-4": "m",
        "hid": "m",
    }
    assert [note.split(": ")[1].rpartition(".")[2] for note in said(result)] == [
        "gone",
        "m",
        '"a b"',
    ]


def test_names_that_cannot_be_carried_get_others() -> None:
    """A public name with other characters is changed, and two that become the same are not."""
    result, platform = imported(
        "model_list:\n"
        "- {model_name: 'my model!', litellm_params: {model: openai/a}}\n"
        "- {model_name: 'my-model', litellm_params: {model: openai/b}}\n"
        f"- {{model_name: '{'x' * 200}', litellm_params: {{model: openai/c}}}}\n"
        "router_settings: {model_group_alias: {old: 'my model!'}}\n" + MASTER
    )
    names = [entry.item.name for entry in platform.aliases]
    assert names == ["my-model", "my-model-2", "x" * 128, "old"]
    assert sum("have callers say" in note for note in said(result)) == 3
    assert platform.aliases[-1].item.route == "my-model"


@pytest.mark.parametrize("name", ["on", "NULL", "1.5", "007", "a:b", "v1/m.x_y-z", "True", "y"])
def test_names_stay_names(name: str) -> None:
    """A name that YAML could take for something else is read back as the same name by anybody."""
    result, platform = imported(
        f"model_list: [{{model_name: '{name}', litellm_params: {{model: 'openai/{name}'}}}}]\n"
    )
    assert platform.aliases[0].item.name == name
    assert yaml.safe_load(result.text)["aliases"][0]["name"] == name
    assert yaml.safe_load(result.text)["routes"][0]["model"] == name


def test_every_setting_is_answered_for() -> None:
    """Everything that is not carried has a note with line, reason and remedy, known or not."""
    result, _ = one_model(
        "model: openai/m, rpm: 5, weight: 2, temperature: 1, extra_headers: {a: canary}, odd: 1",
        "  model_info: {id: a, input_cost_per_token: 2.5e-6, input_cost_per_second: 0.1}\n"
        "  tpm: 5\n"
        "router_settings: {fallbacks: [{gone: [m]}], redis_password: canary, odd: canary}\n"
        "litellm_settings: {callbacks: [x], drop_params: true, odd: canary}\n"
        "guardrails: [canary]\nodd: canary\ninclude: [other.yaml]\n",
    )
    kinds = {note.finding.where.rpartition(".")[2]: note.kind.value for note in result.notes}
    assert kinds == {
        "rpm": "lost",
        "temperature": "lost",
        "extra_headers": "lost",
        "id": "needless",
        "input_cost_per_token": "lost",
        "input_cost_per_second": "lost",
        "tpm": "lost",
        "gone": "lost",
        "redis_password": "needless",
        "callbacks": "lost",
        "drop_params": "lost",
        "guardrails": "lost",
        "odd": "lost",
        "include": "lost",
        "master_key": "changed",
    }
    shown = "\n".join(map(str, result.notes))
    assert "canary" not in shown
    assert "keep 2.5 for a million tokens" in shown
    assert "keep 0.1 for the price list" in shown
    assert all(";" in note.finding.problem for note in result.notes)
    assert [note.finding.mark for note in result.notes] == sorted(
        note.finding.mark for note in result.notes
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no model_list; name LiteLLM's config.yaml"),
        ("version: 1\nprojects: []\n", "has no model_list"),
        ("model_list: {a: b}\n", "has no model_list"),
        ("- a\n", "has no model_list"),
        ("model_list: [\n", "is no valid YAML"),
        ("model_list: !!python/object:os.system []\n", "YAML tags are not used here"),
    ],
)
def test_what_is_no_litellm_configuration_is_refused(text: str, words: str) -> None:
    """Another file, or a broken one, is refused with its place."""
    with pytest.raises(PlatformFileError, match=words) as caught:
        import_litellm(text, source="config.yaml")
    assert str(caught.value).startswith("config.yaml:")


def test_the_organization_is_a_slug() -> None:
    """Names for organization and project go into the file, and others than slugs are refused."""
    result = import_litellm("model_list: []", source="c", organization="acme", project="chat")
    assert "{name: chat, organization: acme}" in result.text
    for wrong in ("", "A", "a b", "x" * 64):
        with pytest.raises(ValueError, match="are slugs"):
            import_litellm("model_list: []", source="c", organization=wrong)


def test_fields_that_are_there_twice_are_said() -> None:
    """A repeated field does not stop the import, but it is not silent either."""
    result, platform = imported("model_list: []\nmodel_list: []\n" + MASTER)
    assert platform.aliases == ()
    assert "config.yaml:2:1: file: lost: model_list is there a second time" in str(result.notes[0])


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-10, 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["os.environ/KEY", "os.environ/", "os.environ/a b", "", "on", "~"])
    | st.text(max_size=10)
)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=5,
)
MODELS = st.sampled_from(
    ["openai/m", "hosted_vllm/Org/M", "azure/d", "gpt-4o", "groq/x", "ollama/q", "a/b", "claude-3"]
)
BASES = st.sampled_from(
    [
        "http://a/v1",
        "http://A/v1",
        "http://b:8000",
        "https://x/y/v1/",
        "http://u:p@x",
        "os.environ/B",
    ]
)
KEYS = st.just("canary-0123456789") | st.just("os.environ/KEY") | st.integers(10**9, 10**10) | TREES
PARAMETERS = st.fixed_dictionaries(
    {"model": MODELS | TREES},
    optional={
        "api_base": BASES | TREES,
        "api_key": KEYS,
        "timeout": TREES,
        "rpm": TREES,
        "custom_llm_provider": st.sampled_from(["openai", "vllm", ""]) | TREES,
        "litellm_credential_name": st.just("shared") | TREES,
        "odd": st.just("canary") | TREES,
    },
)
NAMES = st.sampled_from(["m", "n", "openai", "a b", "x" * 130, "on", "1", "*"]) | TREES
ENTRIES = st.fixed_dictionaries(
    {"model_name": NAMES, "litellm_params": PARAMETERS | TREES},
    optional={"model_info": TREES, "more": TREES},
)
CONFIGS = st.fixed_dictionaries(
    {"model_list": st.lists(ENTRIES | TREES, max_size=6)},
    optional={
        "router_settings": st.fixed_dictionaries(
            {}, optional={"model_group_alias": st.dictionaries(st.text(max_size=5), NAMES)}
        )
        | TREES,
        "general_settings": st.fixed_dictionaries({"master_key": KEYS}) | TREES,
        "credential_list": st.just(
            [{"credential_name": "shared", "credential_values": {"api_key": "canary-shared"}}]
        )
        | TREES,
        "litellm_settings": TREES,
        "environment_variables": TREES,
    },
)


@given(CONFIGS)
def test_whatever_comes_in_a_valid_file_comes_out(config: dict[str, object]) -> None:
    """From any configuration comes a file that passes the check, with no secret in it."""
    text = yaml.safe_dump(config, allow_unicode=False, default_flow_style=None, width=10**6)
    result, platform = imported(text)
    told = result.text + "\n".join(map(str, result.notes))
    assert "canary" not in told
    names = {entry.item.credential for entry in platform.upstreams} - {None}
    names |= {entry.item.secret for entry in platform.keys}
    assert result.variables == tuple(sorted(str(name).removeprefix("env:") for name in names))
    assert all(";" in note.finding.problem for note in result.notes)
    assert all(str(note).isprintable() and str(note).isascii() for note in result.notes)
