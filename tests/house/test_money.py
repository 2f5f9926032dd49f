"""Money: amounts are integers or decimals, never binary fractions."""

import ast

from tests.house.sources import PACKAGE, expect_none, label, nodes, python_files

MONEY_ROOMS = ("rating", "ledger", "billing")


def test_no_float_comes_near_money() -> None:
    """No module of rating, ledger or billing names `float` or writes a binary fraction."""
    wrong = [
        label(path, node.lineno)
        for path in python_files("src")
        if any(path.is_relative_to(PACKAGE / room) for room in MONEY_ROOMS)
        for node in nodes(path)
        if (isinstance(node, ast.Name) and node.id == "float")
        or (isinstance(node, ast.Constant) and isinstance(node.value, float))
    ]
    expect_none(wrong)
