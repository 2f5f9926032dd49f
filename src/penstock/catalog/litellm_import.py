"""Turns a LiteLLM `config.yaml` into a penstock.yaml, and says what it could not carry.

Pure: nothing is read but the text, and no environment but the one that is given. What is carried:
each public name as an alias with its route, the engines behind it as an upstream with endpoints,
time limits, references to keys, and the master key as a key for inference.
"""

from collections.abc import Iterator, Mapping

from penstock.catalog.document import Node, read_document
from penstock.catalog.errors import Finding, PlatformFileError
from penstock.catalog.fields import SHORTEST_KEY_CHARS
from penstock.catalog.litellm_deployments import REFERENCE, Credentials, DeploymentReader
from penstock.catalog.litellm_model import LitellmImport, NoteKind, Notes, Place
from penstock.catalog.litellm_providers import KEY_VARIABLES
from penstock.catalog.litellm_settings import note_parameters, note_sections
from penstock.catalog.litellm_writer import PlatformWriter, scalar
from penstock.kit.slugs import SLUG

LOST, CHANGED = NoteKind.LOST, NoteKind.CHANGED

_MASTER_VARIABLE = "LITELLM_MASTER_KEY"


def import_litellm(
    text: str,
    *,
    source: str,
    organization: str = "imported",
    project: str = "imported",
    variables: Mapping[str, str] | None = None,
) -> LitellmImport:
    """Return the penstock.yaml that does what a LiteLLM `config.yaml` does, as far as it can.

    Entries of one `model_name` become one upstream with several endpoints, if they serve the same
    model with the same key, and one route with several weighted deployments otherwise.
    No secret is copied: a key that stands in the file becomes a reference to a variable that is
    still to be set.

    Args:
        text: The content of `config.yaml`.
        source: Its name, for notes.
        organization: Slug of the organization that gets everything.
        project: Slug of its project.
        variables: Environment variables; looked up where an address or a model is given as
            `os.environ/NAME`, never for keys.

    Raises:
        PlatformFileError: It is no YAML, or no configuration of LiteLLM.
        ValueError: `organization` or `project` is no slug.
    """
    if SLUG.fullmatch(organization) is None or SLUG.fullmatch(project) is None:
        message = "organization and project are slugs: 1 to 63 of a-z, 0-9, dot, _ and -"
        raise ValueError(message)
    root, faults = read_document(text, source)
    file = Place((), _merge(root), root.mark)
    listed = file.member("model_list")
    if listed is None or not isinstance(listed.node.value, list):
        problem = "has no model_list; name LiteLLM's config.yaml"
        raise PlatformFileError([*faults, Finding(source, root.mark, "file", problem)])
    notes = Notes(source)
    for fault in faults:
        notes.add(LOST, Place((), root, fault.mark), f"{fault.where} {fault.problem}")
    note_sections(file, notes)
    own_variables = _own_variables(file)
    credentials = Credentials(notes, used={*_referenced(root), *own_variables, *KEY_VARIABLES})
    key = _master_key(file, credentials, notes)
    reader = DeploymentReader(
        notes=notes,
        credentials=credentials,
        shared=_shared_credentials(file, notes),
        variables={**(variables or {}), **own_variables},
        timeout=_find(file, "router_settings", "timeout")
        or _find(file, "litellm_settings", "request_timeout"),
    )
    writer = PlatformWriter(notes)
    entries = map(reader.read, listed.members())
    writer.add_pools(deployment for deployment in entries if deployment is not None)
    writer.add_second_names(_find(file, "router_settings", "model_group_alias"))
    writer.add_second_names(_find(file, "litellm_settings", "model_alias_map"))
    for section in ("router_settings", "litellm_settings"):
        writer.add_fallbacks(_find(file, section, "fallbacks"))
    for section in ("router_settings", "litellm_settings"):
        writer.add_default_fallbacks(_find(file, section, "default_fallbacks"))
    references = writer.credentials() | ({key} if key else set())
    lines = [*_head(organization, project, key), *writer.lines()]
    return LitellmImport(
        text="".join(f"{line}\n" for line in lines),
        notes=tuple(sorted(notes.listed, key=lambda note: note.finding.mark)),
        variables=tuple(sorted(reference.removeprefix("env:") for reference in references)),
    )


def _head(organization: str, project: str, key: str | None) -> Iterator[str]:
    yield "# Made of LiteLLM's config.yaml by `penstock import litellm`."
    yield "version: 1"
    yield f"organizations: [{{name: {scalar(organization)}}}]"
    yield f"projects: [{{name: {scalar(project)}, organization: {scalar(organization)}}}]"
    if key is not None:
        yield "keys:"
        yield f"  - {{name: master-key, project: {scalar(project)}, secret: {scalar(key)}}}"


def _master_key(file: Place, credentials: Credentials, notes: Notes) -> str | None:
    """Return the reference to the master key: here it opens inference and nothing else."""
    place = _find(file, "general_settings", "master_key")
    if place is None:
        problem = (
            "general_settings has no master_key, and LiteLLM lets everybody in then; here callers "
            "need a key, so write some under keys"
        )
        notes.add(LOST, file, problem)
        return None
    text = str(place.node.value)
    if not text.startswith(REFERENCE) and len(text) < SHORTEST_KEY_CHARS:
        remedy = f"a new key of {SHORTEST_KEY_CHARS} characters or more: shorter ones are refused"
        return credentials.reference(place, _MASTER_VARIABLE, remedy=remedy)
    problem = "it opens inference only and administers nothing; give each program a key of its own"
    notes.add(CHANGED, place, problem)
    return credentials.reference(place, _MASTER_VARIABLE)


def _shared_credentials(file: Place, notes: Notes) -> dict[str, Place]:
    """Return what the names of `credential_list` stand for."""
    listed = file.member("credential_list")
    shared = {}
    for entry in listed.members() if listed else ():
        name, values = entry.member("credential_name"), entry.member("credential_values")
        if name is not None and name.text and values is not None:
            shared[name.text] = values
            note_parameters(values, {"api_key", "api_base", "base_url"}, notes)
    return shared


def _own_variables(file: Place) -> dict[str, str]:
    section = file.member("environment_variables")
    members = section.members() if section else ()
    return {place.name: place.text for place in members if place.text}


def _find(file: Place, section: str, name: str) -> Place | None:
    place = file.member(section)
    return place.member(name) if place else None


def _referenced(node: Node) -> Iterator[str]:
    """Yield the variables that the file refers to anywhere, so that no new name is one of them."""
    pending = [node]
    while pending:
        found = pending.pop()
        pending += [*found.items, *found.fields.values()]
        if isinstance(found.value, str) and found.value.startswith(REFERENCE):
            yield found.value.removeprefix(REFERENCE)


def _merge(node: Node) -> Node:
    """Return a value whose mappings hold what they merge in by `<<`."""
    if isinstance(node.value, list):
        return Node(node.mark, [_merge(item) for item in node.value], {}, node.size)
    if not isinstance(node.value, dict):
        return node
    fields = {name: _merge(value) for name, value in node.value.items() if name != "<<"}
    marks = dict(node.key_marks)
    merged = node.fields.get("<<")
    for parent in (merged.items or [merged]) if merged is not None else ():
        whole = _merge(parent)
        for name, value in whole.fields.items():
            if name not in fields:
                fields[name], marks[name] = value, whole.key_marks[name]
    return Node(node.mark, fields, marks, node.size)
