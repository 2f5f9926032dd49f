"""penstock.yaml: what is valid, and what is said about what is not."""

import os
from pathlib import Path

import pytest

from penstock.catalog.errors import PlatformFileError
from penstock.catalog.platform_file import MAX_FILE_BYTES, load_platform_file, parse
from penstock.catalog.schemas import SECTIONS, ChoiceItem, RouteItem
from penstock.contract.snapshot import Endpoint, Timeouts
from penstock.kit.secrets import SecretUnavailableError

VALID = """\
version: 1
organizations: [{name: dev}, {name: acme}]
projects:
  - {name: playground, organization: dev}
  - {name: chatbot, organization: acme}
keys:
  - {name: dev-key, project: playground, secret: "file:secrets/dev_api_key"}
  - name: chatbot-1
    project: chatbot
    secret: env:CHATBOT_KEY
    aliases: [emulated-70b]
    expires_at: 2030-01-31T00:00:00Z
upstreams:
  - name: emulator
    provider: emulator
    endpoints: ["http://127.0.0.1:18080", "https://[::1]/serve/"]
    credential: env:SOME_TOKEN
    forward_headers: ["x-emulator-*"]
    timeouts: {connect_ms: 1000}
routes: [{name: emulated-70b, upstream: emulator, model: Org/Emulated-70B:v1}]
aliases: [{name: emulated-70b, route: emulated-70b}]
"""


def findings(text: str) -> list[str]:
    """Return what is wrong with a text, one line each."""
    try:
        parse(text, source="penstock.yaml", folder=Path("conf"))
    except PlatformFileError as error:
        return str(error).splitlines()
    return []


def changed(old: str, new: str) -> list[str]:
    """Return what is wrong with the valid text once `old` reads `new`."""
    assert VALID.count(old) == 1, f"{old!r} is not there once"
    return findings(VALID.replace(old, new))


def test_a_valid_file_has_no_findings() -> None:
    """What the reference shows as valid is accepted."""
    assert findings(VALID) == []


def test_sections_may_be_left_out() -> None:
    """A file needs its version and nothing else."""
    assert findings("version: 1") == []


def test_entries_keep_what_was_written() -> None:
    """Values arrive as they were written and defaults are those of the snapshot."""
    platform = parse(VALID, source="penstock.yaml", folder=Path("conf"))
    upstream = platform.upstreams[0].item
    assert upstream.forward_headers == ("x-emulator-*",)
    assert upstream.timeouts.model_dump() == {
        name: getattr(Timeouts(connect_ms=1000), name) for name in Timeouts.__struct_fields__
    }
    (deployment,) = platform.deployments
    assert deployment.item.model == "Org/Emulated-70B:v1"
    assert platform.routes[0].item == RouteItem(
        name="emulated-70b", deployments=(ChoiceItem(deployment="emulated-70b"),)
    )
    assert [key.item.organization for key in platform.keys] == ["dev", "acme"]
    assert platform.keys[0].item.aliases is None


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("version: 1", "version: 2", "1:10: version: is a format that this Penstock does not read"),
        ("version: 1", "version: true", "1:10: version: should be a whole number and is true or"),
        ("version: 1", "version: 1.0", "1:10: version: should be a whole number and is a number"),
        ("version: 1", "", "2:1: version: is missing; add it, e.g. version: 1"),
        ("routes:", "ruotes:", '20:1: ruotes: is no field; did you mean "routes"?'),
        (
            "model: Org/Emulated-70B:v1",
            "modle: x",
            '20:51: routes[0].modle: is no field; did you mean "model"?',
        ),
        (", model: Org/Emulated-70B:v1", "", "20:10: routes[0].model: is missing; add it, e.g."),
        (
            "upstream: emulator",
            "upstream: emulatr",
            '20:41: routes[0].upstream: no upstream is named "emulatr"; did you mean "emulator"?',
        ),
        (
            "{name: playground, organization: dev}",
            "{name: playground, organization: zzz}",
            '4:38: projects[0].organization: no organization is named "zzz"; use one of "dev", ',
        ),
        (
            "aliases: [emulated-70b]",
            "aliases: [emulated-7b]",
            '11:15: keys[1].aliases[0]: no alias is named "emulated-7b"; did you mean',
        ),
        (
            "{name: acme}",
            "{name: dev}",
            '2:37: organizations[1].name: a second organization is named "dev", the first is on',
        ),
        (
            "name: chatbot-1\n    project: chatbot",
            "name: dev-key\n    project: playground",
            '8:11: keys[1].name: a second key is named "dev-key", the first is on line 7; rename',
        ),
        (
            "name: dev}",
            'name: " dev"}',
            "2:24: organizations[0].name: cannot be used: the name begins or ends with space; use",
        ),
        (
            "{name: emulated-70b, route",
            "{name: e 1, route",
            "21:18: aliases[0].name: is no name; be",
        ),
        ("- name: emulator", "- name: Emulator", "14:11: upstreams[0].name: is no name; use 1 to"),
        ("{name: acme}", "{name: 7}", "should be text and is a whole number; put it in quotes"),
        ("{name: acme}", "{name: }", "should be text and is empty; give it a value or remove"),
        ("{name: acme}", "acme", "2:30: organizations[1]: should be fields and is text"),
        ("aliases: [emulated-70b]", "aliases: x", "keys[1].aliases: should be a list and is text"),
        ("Org/Emulated-70B:v1", '""', "routes[0].model: is no model name; use 1 to 512"),
        ("Org/Emulated-70B:v1", "x" * 513, "routes[0].model: is no model name; use 1 to 512"),
        (
            "2030-01-31T00:00:00Z",
            "2030-01-31",
            "12:17: keys[1].expires_at: is no date and time with an offset; write e.g.",
        ),
        ("provider: emulator", "provider: vlm", "15:15: upstreams[0].provider: no provider is nam"),
        ("connect_ms: 1000", "connect_ms: 0", "19:28: upstreams[0].timeouts.connect_ms: is too s"),
        ("connect_ms: 1000", "connect_ms: 86400001", "is too large; use at most 86400000"),
        ("connect_ms: 1000", "connect_ms: '5'", "should be a whole number and is text; write"),
        ("connect_ms: 1000", "conect_ms: 5", "19:16: upstreams[0].timeouts.conect_ms: is no fiel"),
        (
            "connect_ms: 1000",
            "connect_ms: 1000, total_ms: 500",
            "timeouts.connect_ms: is longer than total_ms, 500, so it never comes about; shorten",
        ),
        ('"x-emulator-*"', '"a*"', '18:23: upstreams[0].forward_headers[0]: covers "api-key"'),
        ('"x-emulator-*"', '"X-Trace"', "is no header name; use lower-case letters, e.g."),
        ('"x-emulator-*"', '"*"', "forward_headers[0]: is no header name"),
        ('"x-emulator-*"', "host", 'covers "host", which is never forwarded'),
        (
            '["http://127.0.0.1:18080", "https://[::1]/serve/"]',
            "[]",
            "upstreams[0]: has no endpoints; list their addresses, or say in discover",
        ),
        ("https://[::1]/serve/", "HTTP://x", "endpoints[1]: is not of the form"),
        ("https://[::1]/serve/", "http://127.0.0.1:18080/", "endpoints[1]: is listed twice"),
        ("env:CHATBOT_KEY", "s3cr3t", "10:13: keys[1].secret: is no reference to a secret; write"),
        ("env:CHATBOT_KEY", "'file:'", "10:13: keys[1].secret: is no reference to a secret; write"),
        ("env:SOME_TOKEN", "env:9", "upstreams[0].credential: is no reference to a secret"),
    ],
)
def test_a_fault_is_named_with_place_and_remedy(old: str, new: str, expected: str) -> None:
    """A fault gives a finding with line, column, field, and what to do."""
    shown = changed(old, new)
    assert any(expected in finding for finding in shown), shown
    assert all(finding.startswith("penstock.yaml:") and ";" in finding for finding in shown)


@pytest.mark.parametrize(("provider", "is_told"), [("vllm", True), ("openai_compatible", False)])
def test_an_adapter_is_loaded_by_servers_that_can_be_told(provider: str, *, is_told: bool) -> None:
    """Before anything is applied it is said that nobody would load it, with place and remedy."""
    adapter = "model: legal, adapter_of: base, adapter_path: /adapters/legal"
    text = VALID.replace("model: Org/Emulated-70B:v1", adapter)
    shown = findings(text.replace("provider: emulator", f"provider: {provider}"))
    problem = f"routes[0].adapter_path: servers of {provider} are not told to load adapters; remove"
    assert [problem in finding for finding in shown] == ([] if is_told else [True])


def test_all_faults_are_said_at_once_in_the_order_of_the_file() -> None:
    """Faults of different kinds in different entries are all reported, sorted by place."""
    text = (
        VALID.replace("version: 1", "version: 3")
        .replace("{name: acme}", "{name: acme, colour: red}")
        .replace("upstream: emulator", "upstream: nowhere")
        .replace("https://[::1]/serve/", "ftp://x")
    )
    places = [finding.split(": ")[1] for finding in findings(text)]
    assert places == [
        "version",
        "organizations[1].colour",
        "upstreams[0].endpoints[1]",
        "routes[0].upstream",
    ]


def test_a_bad_entry_still_counts_as_there() -> None:
    """A fault inside an upstream does not make the routes to it dangle."""
    (finding,) = changed("provider: emulator", "privider: emulator")
    assert "privider" in finding


def test_findings_never_repeat_secrets() -> None:
    """A secret or password written where it does not belong is not shown."""
    text = VALID.replace("env:CHATBOT_KEY", "ps_live_topsecret").replace(
        "http://127.0.0.1:18080", "http://user:hunter2@127.0.0.1"
    )
    shown = "\n".join(findings(text))
    assert shown.count("\n") == 1
    assert "topsecret" not in shown
    assert "hunter2" not in shown


def test_a_finding_is_one_line_whatever_was_written() -> None:
    """Line breaks and control characters in names do not break up findings."""
    shown = changed("upstream: emulator", r'upstream: "a\nb\u2028\e[31m"')
    assert len(shown) == 1
    assert r"\n" in shown[0]
    assert "\x1b" not in shown[0]
    assert "\u2028" not in shown[0]


def resolve_nothing(reference: str) -> str:
    """Find no secret anywhere."""
    message = f"cannot read the secret {reference}"
    raise SecretUnavailableError(message)


def test_secrets_and_findings_of_the_file_are_reported_together(tmp_path: Path) -> None:
    """Loading reports unreadable secrets along with everything else."""
    path = tmp_path / "penstock.yaml"
    path.write_text(VALID.replace("upstream: emulator", "upstream: nowhere"))
    with pytest.raises(PlatformFileError) as caught:
        load_platform_file(path, b"pepper", resolve_secret=resolve_nothing)
    fields = [finding.where for finding in caught.value.findings]
    assert fields == [
        "keys[0].secret",
        "keys[1].secret",
        "upstreams[0].credential",
        "routes[0].upstream",
    ]


def test_a_file_is_loaded_with_its_secrets(tmp_path: Path) -> None:
    """Secrets of files are found beside the configuration, and endpoints are canonical."""
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "key").write_text("a-long-enough-secret\n")
    path = tmp_path / "penstock.yaml"
    path.write_text(
        "version: 1\norganizations: [{name: o}]\nprojects: [{name: p, organization: o}]\n"
        'keys: [{name: k, project: p, secret: "file:secrets/key"}]\n'
        "upstreams: [{name: u, endpoints: ['http://GPU.internal'], credential: file:secrets/key}]\n"
    )
    snapshot = load_platform_file(path, b"pepper", version=7, created_at_ns=5)
    assert (snapshot.version, snapshot.created_at_ns) == (7, 5)
    assert snapshot.upstreams[0].endpoints == (Endpoint("http", "gpu.internal", 80),)
    assert snapshot.upstreams[0].credential == f"file:{tmp_path / 'secrets' / 'key'}"


def test_files_that_cannot_be_read_are_findings(tmp_path: Path) -> None:
    """What is absent, no regular file, no UTF-8 or too large is reported as such."""
    binary = tmp_path / "binary"
    binary.write_bytes(b"version: 1\n\xff\xfe")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    large = tmp_path / "large"
    large.write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    for path, words in (
        (tmp_path / "absent", ":1:1: file: cannot be read: No such file"),
        (tmp_path, "file: cannot be read: Is a directory"),
        (pipe, "is no regular file"),
        (binary, ":2:1: file: is no UTF-8"),
        (large, "is larger than 8388608 bytes"),
    ):
        with pytest.raises(PlatformFileError, match=words):
            load_platform_file(path, b"pepper")


def test_a_byte_order_mark_is_ignored(tmp_path: Path) -> None:
    """An editor's byte order mark does no harm."""
    path = tmp_path / "penstock.yaml"
    path.write_bytes(b"\xef\xbb\xbfversion: 1\n")
    assert load_platform_file(path, b"pepper").keys == ()


def test_an_unreadable_ca_file_is_a_finding(tmp_path: Path) -> None:
    """A certificate file that is not there is reported before workers need it."""
    path = tmp_path / "penstock.yaml"
    path.write_text(
        "version: 1\nupstreams: [{name: u, endpoints: ['https://h'], tls_ca_file: ca.pem}]\n"
    )
    with pytest.raises(PlatformFileError, match=r"tls_ca_file: names a file that cannot be read"):
        load_platform_file(path, b"pepper")


def test_every_field_is_in_the_reference() -> None:
    """The reference page names every section and every field."""
    page = (Path(__file__).parents[3] / "docs" / "reference" / "penstock-yaml.md").read_text()
    for section, model in SECTIONS.items():
        assert f"## `{section}`" in page
        for name in model.model_fields:
            assert f"`{name}`" in page, f"{section}: {name}"


WHOLE = """\
version: 1
organizations:
  - {name: "Ümlaut & Söhne", allowed_data_classes: [eu_only], allowed_regions: [eu-de]}
  - {name: acme}
projects:
  - {name: web, organization: "Ümlaut & Söhne"}
  - {name: web, organization: acme, allowed_regions: [eu-fr]}
  - {name: chat, organization: acme}
members:
  - {subject: "auth0|42", organization: acme, role: org_admin, email: ada@example.com}
  - {subject: "auth0|42", organization: acme, project: web, role: developer}
service_accounts: [{name: nightly, organization: acme, project: chat, role: developer}]
keys:
  - {name: ci, organization: acme, project: web, secret: env:CI}
  - name: ci
    project: chat
    role: developer
    scopes: [admin]
    networks: [10.0.0.0/8]
    labels: {team: search}
    rotation: {interval_s: 7776000, grace_s: 3600}
    service_account: nightly
credentials:
  - {name: main, provider: vllm, secret: env:MAIN}
  - {name: own, provider: vllm, organization: acme, upstream: gpu}
upstreams:
  - {name: gpu, provider: vllm, endpoints: [http://a], region: eu-de, data_class: eu_only,
     credential: main}
  - {name: spare, endpoints: [http://b], is_disabled: true}
deployments:
  - {name: big, upstream: gpu, model: m}
  - {name: small, upstream: spare, model: m, credential: main}
routes:
  - name: both
    deployments: [{deployment: big, weight: 3}, {deployment: small}, {deployment: tiny, weight: 0}]
    fallback: tiny
  - {name: tiny, upstream: gpu, model: t}
aliases: [{name: both, route: both, is_open: false}]
grants:
  - {alias: both, organization: acme}
  - {alias: both, organization: "Ümlaut & Söhne", project: web}
"""


def whole(old: str, new: str) -> list[str]:
    """Return what is wrong with the text that uses everything once `old` reads `new`."""
    assert WHOLE.count(old) == 1, f"{old!r} is not there once"
    return findings(WHOLE.replace(old, new))


def test_everything_can_be_said() -> None:
    """A file that uses every section is valid, and projects of one name are told apart."""
    assert findings(WHOLE) == []
    platform = parse(WHOLE, source="penstock.yaml", folder=Path("conf"))
    assert [(key.item.organization, key.item.project) for key in platform.keys] == [
        ("acme", "web"),
        ("acme", "chat"),
    ]
    assert [entry.item.name for entry in platform.deployments] == ["big", "small", "tiny"]
    assert platform.routes[0].item.deployments[0].weight == 3


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "organization: acme, project: web, secret",
            "project: web, secret",
            '14:25: keys[0].project: several organizations have a project "web": "acme"',
        ),
        (
            "project: chat\n    role",
            "project: chap\n    role",
            '16:14: keys[1].project: no project is named "chap"; did you mean "chat"?',
        ),
        (
            "project: web, secret",
            "project: wob, secret",
            'keys[0].project: organization "acme" has no project "wob"; did you mean "web"?',
        ),
        (
            "service_account: nightly",
            "service_account: x",
            'keys[1].service_account: organization "acme" has no service account "x"; use one of',
        ),
        ("fallback: tiny", "fallback: toni", '36:15: routes[0].fallback: no route is named "toni"'),
        ("fallback: tiny", "fallback: both", 'routes[0].fallback: leads back to itself: "both" ->'),
        (
            "upstream: gpu, model: t}",
            "upstream: gpu, model: t, fallback: both}",
            '36:15: routes[0].fallback: leads back to itself: "both" -> "tiny" -> "both"; remove',
        ),
        ("{deployment: small}", "{deployment: big}", "35:62: routes[0].deployments[1].deployment:"),
        ("{deployment: small}", "{deployment: smal}", 'deployment: no deployment is named "smal"'),
        ("weight: 3", "weight: 1001", "routes[0].deployments[0].weight: is too large; use at most"),
        ("weight: 3", "wait: 3", 'deployments[0].wait: is no field; did you mean "weight"?'),
        ("{deployment: big, weight: 3}", "{weight: 3}", "deployments[0].deployment: is missing"),
        ("{name: big,", "{name: tiny,", 'a second deployment is named "tiny", the first is on'),
        (
            "credential: main}\n  - {name: spare",
            "credential: mien}\n  - {name: spare",
            "is neither",
        ),
        (
            "{alias: both, organization: acme}",
            '{alias: both, organization: "Ümlaut & Söhne", project: web}',
            "grants[1].project: is the same grant as that on line 40; remove one of the two",
        ),
        (
            "organization: acme, project: web, role: developer",
            "organization: acme, role: developer",
            'members[1].subject: a second member is named "auth0|42", the first is on line 10',
        ),
        ("project: web, role: developer", "project: web, role: org_admin", "roles of a project ar"),
        ("role: org_admin", "role: org_amdin", 'no role is named "org_amdin"; did you mean "org_'),
        ("scopes: [admin]", "scopes: [admni]", 'keys[1].scopes[0]: no scope is named "admni"; did'),
        ("scopes: [admin]", "scopes: []", "keys[1].scopes: is an empty list; name at least one"),
        ("10.0.0.0/8", "10.0.0.1/8", "keys[1].networks: cannot be used: an allowed network is an"),
        ("team: search", "team: 7", "keys[1].labels.team: should be text and is a whole number"),
        ("interval_s: 7776000", "interval_s: 5", "keys[1].rotation: cannot be used: a rotation"),
        ("ada@example.com", "ada", "members[0].email: cannot be used: the e-mail address is not"),
        (
            "provider: vllm, organization: acme, upstream: gpu",
            "provider: vllm, upstream: gpu",
            "25:5: credentials[1]: names an upstream and no organization; name its organization",
        ),
        ("{name: main, provider", "{name: 'env:X', provider", "begins like a reference"),
        ("region: eu-de", "region: EU", "upstreams[0].region: is no name; use 1 to 63"),
        ("region: eu-de", "kv_events: 5557/5558-5559", "upstreams[0].kv_events: has more ports of"),
        ("region: eu-de", "kv_events: 0", "upstreams[0].kv_events: has a port that does not exist"),
        ("model: t}", "model: t, adapter_of: t}", "routes[1]: is an adapter of itself; name the"),
        ("model: t}", "model: t, adapter_path: /t}", "has an adapter_path and adapts no model; n"),
        ("model: t}", 'model: t, adapter_of: m, adapter_path: ""}', "adapter_path: is no place of"),
    ],
)
def test_what_ties_entries_together_is_checked(old: str, new: str, expected: str) -> None:
    """Faults of the wider format are named with their place and a remedy, too."""
    shown = whole(old, new)
    assert any(expected in finding for finding in shown), shown
    assert all(finding.startswith("penstock.yaml:") and ";" in finding for finding in shown)


def test_one_missing_organization_is_told_once() -> None:
    """A project of an organization that is not there is not told of as well."""
    shown = findings(
        "version: 1\nmembers: [{subject: s, organization: gone, project: p, role: developer}]\n"
    )
    assert len(shown) == 1
    assert 'no organization is named "gone"' in shown[0]


def test_a_chain_of_fallbacks_has_an_end() -> None:
    """Eight fallbacks in a row are enough; the route where it becomes too long is named."""
    routes = "".join(
        f"  - {{name: r{number}, upstream: u, model: m, fallback: r{number + 1}}}\n"
        for number in range(9)
    )
    text = (
        "version: 1\nupstreams: [{name: u, endpoints: [http://a]}]\n"
        f"routes:\n{routes}  - {{name: r9, upstream: u, model: m}}\n"
    )
    (finding,) = findings(text)
    assert "routes[0].fallback: has more than 8 fallbacks behind it" in finding
    assert findings(text.replace(", fallback: r9}", "}")) == []


def test_a_credential_that_is_a_secret_is_not_shown() -> None:
    """What stands where a reference or name belongs may be the secret itself."""
    (finding,) = whole("credential: main}\n  - {name: spare", "credential: sk-1}\n  - {name: spare")
    assert "sk-1" not in finding


def test_a_name_has_one_spelling() -> None:
    """Two ways to write one character are the same name."""
    assert findings(WHOLE.replace('organization: "Ümlaut', 'organization: "U\u0308mlaut')) == []
