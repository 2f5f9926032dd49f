"""Operations: what the admin API can do is in the matrix of roles, and nothing else can be done."""

from typing import Any

import pytest
from tests.fakes.admin_rig import Operation, list_operations
from tests.house.sources import expect_none

from penstock.access.matrix import MATRIX


@pytest.fixture
def operations(document: dict[str, Any]) -> list[Operation]:
    """Every operation of the admin API."""
    return [
        operation for operation in list_operations(document) if operation.path.startswith("/api/")
    ]


def test_every_operation_is_in_the_matrix(operations: list[Operation]) -> None:
    """Every operation of the document names a row of `access.matrix`."""
    assert operations
    expect_none([f"{one}: {one.name!r}" for one in operations if one.name not in MATRIX])


def test_reading_and_changing_are_different_operations(operations: list[Operation]) -> None:
    """No row of the matrix is for both an operation that only reads and one that changes things."""
    reads = {one.name for one in operations if not one.is_change}
    changes = {one.name for one in operations if one.is_change}
    expect_none(sorted(reads & changes))


def test_auditors_change_nothing(operations: list[Operation]) -> None:
    """The roles that only read are in no row of an operation that changes something."""
    wrong = [
        f"{one}: {role}"
        for one in operations
        if one.is_change
        for role in ("auditor", "billing_admin", "inference_only")
        if role in MATRIX[one.name]
    ]
    expect_none(wrong)
