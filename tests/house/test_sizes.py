"""Sizes: what is larger than this, nobody finds anything in."""

import ast

from tests.house.sources import (
    ROOT,
    Function,
    expect_none,
    functions,
    label,
    nodes,
    python_files,
    text,
)

MODULE_LINES = 600
TEST_MODULE_LINES = 1_000
FUNCTION_LINES = 70
POSITIONAL_PARAMETERS = 5
PUBLIC_METHODS = 20
ROOM_README_LINES = 80
ARCHITECTURE_LINES = 200

EXEMPT: dict[str, str] = {}
"""Files past a bound: path -> date and reason. Short, and meant to become empty again."""


def _code_lines(function: Function) -> int:
    """Count a function's lines without its docstring: explaining well is no fault."""
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    match function.body[0]:
        case ast.Expr(value=ast.Constant(value=str())) as docstring:
            lines -= (docstring.end_lineno or docstring.lineno) - docstring.lineno + 1
    return lines


def test_modules_are_short() -> None:
    """No module is longer than 600 lines, no test module longer than 1,000."""
    too_long = [
        f"{label(path)}: {lines} lines"
        for path in python_files()
        if (lines := text(path).count("\n"))
        > (TEST_MODULE_LINES if path.is_relative_to(ROOT / "tests") else MODULE_LINES)
        and label(path) not in EXEMPT
    ]
    expect_none(too_long)


def test_functions_are_short() -> None:
    """No function has more than 70 lines besides its docstring."""
    too_long = [
        f"{label(path, function.lineno)} {function.name}: {lines} lines"
        for path in python_files()
        for function in functions(path)
        if (lines := _code_lines(function)) > FUNCTION_LINES
    ]
    expect_none(too_long)


def test_functions_take_few_positional_parameters() -> None:
    """No function takes more than five parameters by position."""
    too_many = []
    for path in python_files("src", "benches", "docs"):
        for function in functions(path):
            names = [argument.arg for argument in function.args.posonlyargs + function.args.args]
            count = len(names) - (names[:1] in (["self"], ["cls"]))
            if count > POSITIONAL_PARAMETERS:
                too_many.append(f"{label(path, function.lineno)} {function.name}: {count}")
    expect_none(too_many)


def test_classes_have_few_public_methods() -> None:
    """No class has more than twenty public methods."""
    too_many = []
    for path in python_files("src"):
        for node in nodes(path):
            if isinstance(node, ast.ClassDef):
                methods = [item for item in node.body if isinstance(item, Function)]
                count = sum(not method.name.startswith("_") for method in methods)
                if count > PUBLIC_METHODS:
                    too_many.append(f"{label(path, node.lineno)} {node.name}: {count}")
    expect_none(too_many)


def test_pages_that_everybody_reads_are_short() -> None:
    """ARCHITECTURE.md has at most 200 lines and a room's README at most 80."""
    pages = {ROOT / "ARCHITECTURE.md": ARCHITECTURE_LINES}
    pages |= dict.fromkeys((ROOT / "src").rglob("README.md"), ROOM_README_LINES)
    too_long = [
        f"{label(path)}: {lines} lines"
        for path, bound in pages.items()
        if (lines := text(path).count("\n")) > bound
    ]
    expect_none(too_long)
