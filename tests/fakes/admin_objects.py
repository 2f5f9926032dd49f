"""Objects of every kind that the admin API creates, made of the examples in its document.

Nothing here names a kind: whoever adds one with an example of its body has it in every test that
walks over all operations.
"""

import re
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.admin_rig import AdminRig, Operation, list_operations

JSON = "application/json"
_PARAMETER = re.compile(r"\{(\w+)\}")
_NAMES = {"name", "subject"}
"""Members whose values may be taken already."""
_DAY = "2026-06-15"
"""What stands where something is required that is no word of a few."""
_IN_USAGE = {"organization": "organization_id", "project": "project_id"}
"""Names of filters that are not called after ids."""


@dataclass(frozen=True)
class Objects:
    """Objects of every kind in one place."""

    ids: dict[str, str] = field(default_factory=dict)
    """By the names that paths, bodies and queries have for them."""
    bodies: dict[str, dict[str, Any]] = field(default_factory=dict)
    """As they were answered when they were created, by the parameter in their path."""

    @property
    def missing(self) -> dict[str, str]:
        """Ids of the same forms that nothing has."""
        return {name: f"{value[:-12]}000000000000" for name, value in self.ids.items()}

    def owned_by(self, name: str, value: str) -> set[str]:
        """Return the parameters of the objects that are that one, or whose owner it is."""
        return {
            parameter
            for parameter, body in self.bodies.items()
            if value in {body["id"] if parameter == name else None, body.get(name)}
        }


class AdminDocument:
    """The OpenAPI document, as tests read it that know no operation by name."""

    def __init__(self, document: dict[str, Any]) -> None:
        """Read the document."""
        self._document = document
        self._number = 0
        self.operations = [one for one in list_operations(document) if one.name]
        assert len(self.operations) > 30
        self._creations = self._find_creations()

    def entry(self, operation: Operation) -> dict[str, Any]:
        """Return what the document says of an operation."""
        entry: dict[str, Any] = self._document["paths"][operation.path][operation.method]
        return entry

    def resolve(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Return the schema that a reference leads to; the first of alternatives."""
        schema = schema.get("anyOf", [schema])[0]
        if "$ref" not in schema:
            return schema
        found: dict[str, Any] = self._document["components"]["schemas"][
            schema["$ref"].rpartition("/")[2]
        ]
        return found

    def body_schema(self, operation: Operation) -> dict[str, Any] | None:
        """Return the schema of an operation's JSON body, if it takes one."""
        content = self.entry(operation).get("requestBody", {}).get("content", {})
        return self.resolve(content[JSON]["schema"]) if JSON in content else None

    def body(self, operation: Operation, ids: dict[str, str]) -> Any:
        """Return the example of an operation's body with these ids in it, and names that are new.

        Without a body it is None.
        """
        schema = self.body_schema(operation)
        if schema is None:
            return None
        assert schema.get("examples"), f"the body of {operation} has no example"
        self._number += 1
        return self.fill(schema["examples"][0], ids)

    def query(self, operation: Operation, ids: dict[str, str]) -> list[str]:
        """Return a query for each filter of a listing that takes an id."""
        parameters = self.entry(operation).get("parameters", [])
        required = "".join(
            f"&{one['name']}={one['schema'].get('enum', [_DAY])[0]}"
            for one in parameters
            if one["in"] == "query" and one["required"]
        )
        names = [one["name"] for one in parameters if one["in"] == "query"]
        ids = ids | {name: ids[other] for name, other in _IN_USAGE.items()}
        return [f"?{name}={ids[name]}{required}" for name in names if name in ids]

    def parameters(self, operation: Operation) -> list[str]:
        """Return the names of a path's parameters, from left to right."""
        return _PARAMETER.findall(operation.path)

    def place(self, operation: Operation, ids: dict[str, str]) -> str:
        """Return the path below `/api/v1` with these ids in it; what is not there is `none`."""
        path = operation.path.removeprefix("/api/v1")
        return _PARAMETER.sub(lambda match: ids.get(match[1], "none"), path)

    def creations(self) -> dict[str, Operation]:
        """Return the operations that create an object, by the parameter of its path."""
        return self._creations

    def _find_creations(self) -> dict[str, Operation]:
        found = {}
        for operation in self.operations:
            is_creation = "201" in self.entry(operation)["responses"]
            for other in self.operations if is_creation else ():
                match = re.fullmatch(re.escape(operation.path) + r"/\{(\w+)\}", other.path)
                if match is not None:
                    found[match[1]] = operation
        return found

    def references(self, operation: Operation) -> set[str]:
        """Return the names of ids in the example of an operation's body."""
        schema = self.body_schema(operation) or {}
        return _references(schema.get("examples", [{}])[0])

    def names(self, operation: Operation) -> set[str]:
        """Return the members of a body's example that no two objects have alike."""
        schema = self.body_schema(operation) or {}
        return _NAMES.intersection(schema.get("examples", [{}])[0])

    def fill(self, example: Any, ids: dict[str, str]) -> Any:
        """Return a body with these ids and new names in it, at any depth."""
        if isinstance(example, list):
            return [self.fill(one, ids) for one in example]
        if not isinstance(example, dict):
            return example
        filled = {}
        for name, value in example.items():
            if name in ids and isinstance(value, str):
                filled[name] = ids[name]
            elif name in _NAMES and isinstance(value, str):
                filled[name] = f"{value}-{self._number}"
            else:
                filled[name] = self.fill(value, ids)
        return filled


async def create_objects(
    rig: AdminRig, document: AdminDocument, ids: dict[str, str] | None = None
) -> Objects:
    """Create an object of each kind, apart from those whose ids are given."""
    objects = Objects(dict(ids or {}))
    creations = document.creations()
    waiting = [parameter for parameter in creations if parameter not in objects.ids]
    while waiting:
        ready = [
            parameter
            for parameter in waiting
            if document.references(creations[parameter]) <= objects.ids.keys()
        ]
        assert ready, f"examples name objects that nothing creates: {waiting}"
        for parameter in ready:
            await create_object(rig, document, parameter, objects)
            waiting.remove(parameter)
    return objects


async def create_object(
    rig: AdminRig, document: AdminDocument, parameter: str, objects: Objects
) -> None:
    """Create one more object of a kind, which takes the place of the one before."""
    creation = document.creations()[parameter]
    await renew_references(rig, document, creation, objects)
    path = document.place(creation, objects.ids)
    created = await rig.create(path, **document.body(creation, objects.ids))
    objects.bodies[parameter] = created
    # `/service-accounts/{account_id}` is `service_account_id` in bodies.
    noun = path.rpartition("/")[2].replace("-", "_").removesuffix("s")
    for name in (parameter, f"{noun}_id"):
        objects.ids[name] = created["id"]
    await _find_parts(rig, document, parameter, objects)


async def renew_references(
    rig: AdminRig, document: AdminDocument, operation: Operation, objects: Objects
) -> None:
    """Make new what tells apart the object that an operation creates, if that is no name."""
    creations = document.creations()
    if operation not in creations.values() or document.names(operation):
        return
    # Never the organization: the objects that are there belong to it.
    references = document.references(operation) - {"organization_id"}
    for parameter in sorted(references & creations.keys())[:1]:
        await create_object(rig, document, parameter, objects)


async def _find_parts(
    rig: AdminRig, document: AdminDocument, parameter: str, objects: Objects
) -> None:
    # What comes with an object, and is listed below it: a key's secrets.
    for operation in document.operations:
        names = document.parameters(operation)
        if names[:1] != [parameter] or len(names) == 1:
            continue
        listing = document.place(operation, objects.ids).rpartition("/")[0]
        (part, *_) = (await rig.call("GET", listing)).json()["data"]
        objects.ids[names[1]] = part["id"]


def _references(example: Any) -> set[str]:
    if isinstance(example, list):
        return set().union(*(_references(one) for one in example))
    if not isinstance(example, dict):
        return set()
    own = {name for name, value in example.items() if name.endswith("_id") and value is not None}
    return own.union(*(_references(value) for value in example.values()))
