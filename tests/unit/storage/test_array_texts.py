"""Arrays as text: what PostgreSQL makes of them is in `tests/integration/test_usage_bulk.py`."""

import pytest
from sqlalchemy import LargeBinary

from penstock.storage.array_texts import write_texts, writer_of


@pytest.mark.parametrize("texts", [["a", "b\0c"], ["\0"], ["\0", None]])
def test_a_text_that_would_be_two_is_refused(texts: list[str | None]) -> None:
    """No value can move those behind it into other rows."""
    with pytest.raises(ValueError, match="NUL"):
        write_texts(texts)


def test_bytes_and_nothing_are_written() -> None:
    """Bytes are hexadecimal, and what is missing is no text."""
    assert writer_of(LargeBinary())([b"\xff\0", None]) == '{"\\\\xff00",NULL}'
    assert write_texts([None]) == "{NULL}"
