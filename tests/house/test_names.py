"""Names: one word for one thing, and the word is the glossary's (GLOSSARY.md)."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.house.sources import (
    PACKAGE,
    ROOT,
    Function,
    expect_none,
    label,
    nodes,
    python_files,
    tree,
)

NAMELESS = {"utils", "util", "helpers", "helper", "common", "manager", "managers", "misc"}

SAY_INSTEAD = {
    "tenant": "organization",
    "tenants": "organizations",
    "customer": "organization",
    "customers": "organizations",
    "workspace": "organization or project",
    "team": "organization or project",
    "consumer": "principal",
    "vendor": "provider",
    "backend": "upstream or endpoint",
    "backends": "upstreams or endpoints",
    "model_group": "alias or route",
    "virtual_model": "alias",
    "virtual_key": "API key",
    "prompt_tokens": "input_tokens",
    "completion_tokens": "output_tokens",
    "spend_log": "usage event",
    "billable_metric": "meter",
    "cost_map": "price book",
}

WIRE_NAMES = {"prompt_tokens", "completion_tokens"}
"""Members of other people's formats: written as they are where these formats are."""

WIRE_FOLDERS = (PACKAGE / "gateway" / "dialects", PACKAGE / "emulator")


def _defined(path: Path) -> Iterator[tuple[str, int]]:
    """Return the names that a module makes: what it merely uses is named by others."""
    for node in nodes(path):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name, node.lineno
            case ast.ClassDef(name=name) | ast.arg(arg=name):
                yield name, node.lineno
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name, node.lineno


@cache
def _words(name: str) -> str:
    """Return a name as `_word_word_`, whatever its case was."""
    return "_" + re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().strip("_") + "_"


def test_no_module_is_named_after_nothing() -> None:
    """No folder or module is called utils, helpers, common, manager or misc."""
    nameless = [
        label(path)
        for path in python_files()
        if NAMELESS & set(path.relative_to(ROOT).with_suffix("").parts)
    ]
    expect_none(nameless)


def test_names_are_those_of_the_glossary() -> None:
    """No function, class, parameter or variable of ours uses a word that the glossary replaces."""
    wrong = []
    for path in python_files("src"):
        is_wire = any(path.is_relative_to(folder) for folder in WIRE_FOLDERS)
        banned = SAY_INSTEAD.keys() - (WIRE_NAMES if is_wire else set())
        wrong += [
            f"{label(path, line)}: {name}: say {SAY_INSTEAD[word]}"
            for name, line in _defined(path)
            for word in banned
            if f"_{word}_" in _words(name)
        ]
    expect_none(wrong)


def test_functions_in_a_store_say_whose_data_they_touch() -> None:
    """Every public function of a `store.py` takes a `scope`."""
    unscoped = []
    for path in python_files("src"):
        if path.name != "store.py":
            continue
        classes = (node for node in tree(path).body if isinstance(node, ast.ClassDef))
        bodies = [tree(path).body, *(node.body for node in classes)]
        for function in (item for body in bodies for item in body):
            if isinstance(function, Function) and not function.name.startswith("_"):
                arguments = function.args
                names = arguments.posonlyargs + arguments.args + arguments.kwonlyargs
                if "scope" not in {argument.arg for argument in names}:
                    unscoped.append(f"{label(path, function.lineno)} {function.name}")
    expect_none(unscoped)
