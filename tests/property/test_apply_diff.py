"""The comparison of documents: what was applied changes nothing, in whatever parts it was."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from penstock.catalog.apply.desired import read_sent, read_wanted
from penstock.catalog.apply.diff import diff, to_document
from penstock.catalog.apply.model import Change, Members, Ref
from penstock.catalog.document import read_document, write_document

NAMES = st.sampled_from(["a", "b", "c", "d"])
FREE_NAMES = st.sampled_from(["a", "B c", "ü", "1e5", "on", "null", "#x", "- y", "{z}", "'"])
SLUGS = st.lists(st.sampled_from(["eu", "us", "eu_only"]), min_size=1, max_size=3)
MAYBE = st.booleans()


def optional(**members: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Return mappings that have some of these members."""
    return st.fixed_dictionaries({}, optional=members)


POLICY = optional(allowed_data_classes=SLUGS, allowed_regions=SLUGS)
UPSTREAM = optional(
    provider=st.just("vllm"),
    region=st.just("eu"),
    credential=st.sampled_from(["env:X", "file:/run/x", "credential a"]),
    forward_headers=st.just(["x-a", "x-b-*"]),
    timeouts=optional(connect_ms=st.integers(1, 9_000), idle_ms=st.just(60_000)),
    max_connections=st.integers(1, 100),
    is_disabled=MAYBE,
)
KEY = optional(
    scopes=st.just(["models:read", "inference"]),
    networks=st.just(["10.0.0.0/8", "::1"]),
    labels=st.just({"b": "1", "a": ""}),
    expires_at=st.just("2030-01-31T00:00:00+02:00"),
    rotation=st.just({"interval_s": 3_600}),
)


@st.composite
def owners(draw: st.DrawFn) -> dict[str, Any]:
    """Return organizations with everything that belongs to them alone."""
    organizations = draw(st.lists(FREE_NAMES, unique=True, min_size=1, max_size=3))
    projects = [
        {"name": name, "organization": owner, **draw(POLICY)}
        for owner in organizations
        for name in draw(st.lists(FREE_NAMES, unique=True, max_size=2))
    ]
    return {
        "organizations": [{"name": name, **draw(POLICY)} for name in organizations],
        "projects": projects,
        "members": [
            {"subject": "s|1", "organization": owner, "role": "auditor"} for owner in organizations
        ],
        "service_accounts": [
            {
                "name": f"account {project['name']}",
                "organization": project["organization"],
                "project": project["name"],
                "role": "developer",
                **draw(optional(is_disabled=MAYBE)),
            }
            for project in {one["name"]: one for one in projects}.values()
        ],
        "keys": [
            {
                "name": f"key {number}",
                "project": project["name"],
                "organization": project["organization"],
                "secret": f"{number}-of-some-length",
                **draw(KEY),
            }
            for number, project in enumerate(projects)
        ],
    }


@st.composite
def catalogs(draw: st.DrawFn) -> dict[str, Any]:
    """Return upstreams and everything that leads to them."""
    upstreams = draw(st.lists(NAMES, unique=True, min_size=1, max_size=3))
    routes = draw(st.lists(NAMES, unique=True, max_size=4))
    return {
        "upstreams": [
            {"name": name, "endpoints": [f"http://{name}"], **draw(UPSTREAM)} for name in upstreams
        ],
        "deployments": [{"name": "shared", "upstream": upstreams[0], "model": "m"}],
        "routes": [
            {
                "name": name,
                **draw(st.sampled_from([short(upstreams[-1]), {"deployments": CHOICES}])),
                # Only to routes before it, so that there is no circle.
                **({"fallback": draw(st.sampled_from(routes[:at]))} if at and draw(MAYBE) else {}),
            }
            for at, name in enumerate(routes)
        ],
        "aliases": [
            {"name": f"{name}-alias", "route": name, **draw(optional(is_open=MAYBE))}
            for name in routes
        ],
    }


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """Return valid documents in which everything may refer to everything."""
    document = {"version": 1, **draw(owners()), **draw(catalogs())}
    organization = document["organizations"][0]["name"]
    credentials = [
        {"name": f"credential {name}", "provider": "vllm", "secret": f"sk-{name}"} for name in "ab"
    ]
    own = {"organization": organization, "upstream": document["upstreams"][0]["name"]}
    document["credentials"] = [*credentials, {**credentials[0], "name": "own", **own}]
    rule = optional(
        window_s=st.sampled_from([60, 3_600]),
        per=st.just("key"),
        enforcement=st.sampled_from(["hard", "soft"]),
    )
    rules = [
        {"metric": metric, "limit": 5, **draw(rule)}
        for metric in draw(st.lists(st.sampled_from(["requests", "tokens"]), unique=True))
    ]
    document["plans"] = [{"name": "plan", "rules": rules}]
    document["limits"] = [
        {"organization": one["name"], **draw(optional(plan=st.just("plan"), rules=st.just(rules)))}
        for one in document["organizations"]
    ]
    document["grants"] = [
        {"alias": alias["name"], "organization": organization}
        for alias in document["aliases"]
        if draw(MAYBE)
    ]
    return document


CHOICES = [{"deployment": "shared", "weight": 0}]


def short(upstream: str) -> dict[str, Any]:
    """Return the members of a short route."""
    return {"upstream": upstream, "model": "m", "max_output_tokens": 5}


def state_of(document: dict[str, Any]) -> dict[Ref, Members]:
    """Return the objects of a valid document."""
    examined = read_sent(document)
    assert [str(finding) for finding in examined.findings] == []
    return {ref: wanted.members for ref, wanted in read_wanted(examined.platform).items()}


def carry_out(state: dict[Ref, Members], changes: list[Change]) -> dict[Ref, Members]:
    """Return a state after changes."""
    after = dict(state)
    for change in changes:
        if change.after is None:
            del after[change.ref]
        else:
            after[change.ref] = change.after
    return after


@given(documents())
def test_what_was_applied_changes_nothing(document: dict[str, Any]) -> None:
    """A document, and its export, compared with the state that it led to, has no difference."""
    state = carry_out({}, diff(state_of(document), {}))
    assert diff(state_of(document), state) == []
    exported = to_document(state)
    assert "secret" not in str(exported)
    assert diff(state_of(exported), state) == []
    assert diff(state, state_of(exported)) == []
    assert to_document(state_of(exported)) == exported


@given(documents())
def test_an_export_is_read_back_as_it_was_written(document: dict[str, Any]) -> None:
    """Whatever names look like, the YAML of an export means the same document."""
    exported = to_document(state_of(document))
    root, findings = read_document(write_document(exported), "export")
    assert findings == []
    assert root.plain() == exported


@given(documents(), documents(), st.data())
def test_a_document_can_be_applied_in_any_parts(
    document: dict[str, Any], before: dict[str, Any], data: st.DataObject
) -> None:
    """Parts of a document, applied one after the other onto anything, lead to the whole."""
    desired = state_of(document)
    refs = data.draw(st.permutations(list(desired)))
    cut = data.draw(st.integers(0, len(refs)))
    state = start = state_of(before)
    for part in (refs[:cut], refs[cut:]):
        state = carry_out(state, diff({ref: desired[ref] for ref in part}, state))
    assert state == {**start, **desired}
    assert diff(desired, state) == []


@given(documents(), documents())
def test_what_is_referred_to_comes_first(document: dict[str, Any], before: dict[str, Any]) -> None:
    """At every step all that an object refers to is there, and what is removed is not in use."""
    desired, start = state_of(document), state_of(before)
    state = start
    for change in diff(desired, start, unwanted=list(start)):
        state = carry_out(state, [change])
        refs = list(mentioned(change.ref, change.after)) if change.after is not None else []
        assert all(ref in state for ref in refs)
        if change.action == "delete":
            in_use = {ref for one, members in state.items() for ref in mentioned(one, members)}
            assert change.ref not in in_use
    assert state == desired


def mentioned(ref: Ref, members: Members) -> list[Ref]:
    """Return the objects that an object refers to, but for keys' names of aliases."""
    names = ref.names
    owner, project = names.get("organization"), names.get("project", members.get("project"))
    refs = [Ref("organizations", (owner,))] if owner else []
    refs += [Ref("projects", (owner, project))] if project else []
    refs += [Ref("aliases", (names["alias"],))] if "alias" in names else []
    refs += [Ref("upstreams", (members["upstream"],))] if members.get("upstream") else []
    refs += [Ref("routes", (members["route"],))] if "route" in members else []
    refs += [Ref("routes", (members["fallback"],))] if members.get("fallback") else []
    credential = members.get("credential")
    if credential and ":" not in credential:
        refs.append(Ref("credentials", (None, credential)))
    if ref.section == "routes":
        refs += [Ref("deployments", (one["deployment"],)) for one in members["deployments"]]
    return refs
