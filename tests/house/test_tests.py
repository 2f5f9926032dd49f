"""Tests: each is a sentence of guarantee."""

import ast
import re

from tests.house.sources import expect_none, functions, label, python_files

SECOND_SENTENCE = re.compile(r"(?<!e\.g)(?<!i\.e)[.!?]\s+[A-Z]")


def test_every_test_states_its_guarantee() -> None:
    """Every test has a docstring of one sentence."""
    wrong = []
    for path in python_files("tests"):
        for function in functions(path):
            if path.name.startswith("test_") and function.name.startswith("test_"):
                sentence = ast.get_docstring(function) or ""
                if not sentence.endswith(".") or SECOND_SENTENCE.search(sentence):
                    wrong.append(f"{label(path, function.lineno)} {function.name}: {sentence!r}")
    expect_none(wrong)


def test_no_test_patches() -> None:
    """No test replaces parts of modules: fakes come through constructors."""
    wrong = []
    for path in python_files("tests"):
        for function in functions(path):
            names = {argument.arg for argument in function.args.args}
            if "mocker" in names:
                wrong.append(f"{label(path, function.lineno)} {function.name}")
    imports = re.compile(r"^\s*(?:from unittest(?:\.mock)? import|import unittest)", re.MULTILINE)
    wrong += [label(p) for p in python_files("tests") if imports.search(p.read_text("utf-8"))]
    expect_none(wrong)
