"""Turns pydantic's errors into sentences that say what to write instead."""

from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from penstock.catalog.document import Node, Path
from penstock.catalog.errors import Mark, suggest

_EXPECTED = {
    "string_type": ("text", "put it in quotes"),
    "int_type": ("a whole number", "write digits without quotes"),
    "bool_type": ("true or false", "write one of them without quotes"),
    "list_type": ("a list", "put it in brackets or write an entry a line, each after a hyphen"),
    "tuple_type": ("a list", "put it in brackets or write an entry a line, each after a hyphen"),
    "model_type": ("fields", "write them as name: value"),
    "dict_type": ("fields", "write them as name: value"),
}


def explain(error: ErrorDetails, model: type[BaseModel], node: Node) -> tuple[Path, Mark, str]:
    """Return where one validation error is, as a field and in the file, and what it says.

    Args:
        error: One of `ValidationError.errors()`.
        model: What was validated against.
        node: The value that was validated.
    """
    location = tuple(error["loc"])
    mark = node.find_mark(location)
    match error["type"]:
        case "missing":
            problem = _explain_missing(model, location)
        case "extra_forbidden":
            mark = _key_mark(node, location)
            known = sorted(_model_at(model, location[:-1]).model_fields)
            problem = f"is no field; {suggest(str(location[-1]), known, otherwise='remove it')}"
        case "value_error":
            problem = str(error["ctx"]["error"])
        case kind if kind in _EXPECTED:
            expected, remedy = _EXPECTED[kind]
            if error["input"] is None:
                remedy = "give it a value or remove the line"
            problem = f"should be {expected} and is {_describe(error['input'])}; {remedy}"
        case "greater_than_equal":
            problem = f"is too small; use at least {error['ctx']['ge']}"
        case "less_than_equal":
            problem = f"is too large; use at most {error['ctx']['le']}"
        case "too_short":
            problem = "is an empty list; name at least one"
        case _:
            # The message of the library, which does not repeat the value.
            problem = f"{error['msg'].lower()}; correct it"
    return location, mark, problem


def _explain_missing(model: type[BaseModel], location: Path) -> str:
    name = str(location[-1])
    field = _model_at(model, location[:-1]).model_fields[name]
    example = field.examples[0] if field.examples else "..."
    return f"is missing; add it, e.g. {name}: {example}"


def _model_at(model: type[BaseModel], location: Path) -> type[BaseModel]:
    """Return the model of the fields at `location` inside `model`."""
    for step in location:
        field = model.model_fields.get(str(step))
        if field is not None:
            model = next(_models_in(field.annotation), model)
    return model


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the models that a field may hold, also in a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)


def _key_mark(node: Node, location: Path) -> Mark:
    """Return where an unknown field's name is written."""
    owner = node.find(location[:-1])
    return owner.key_marks.get(str(location[-1]), owner.mark)


def _describe(value: Any) -> str:
    match value:
        case None:
            return "empty"
        case bool():
            return "true or false"
        case int():
            return "a whole number"
        case float():
            return "a number"
        case str():
            return "text"
        case list() | tuple():
            return "a list"
    return "a group of fields"
