"""What servers say of LoRA adapters in words, for want of codes. Pure."""

import re

_LOADED = re.compile("already been loaded|already exists", re.IGNORECASE)
_FULL = re.compile(
    "no free (adapter|lora) slots|maximum number of loaded lora adapters", re.IGNORECASE
)
_LACKING = re.compile("lora adapters? .*not loaded", re.IGNORECASE)
_BAD_REQUEST, _NOT_FOUND = 400, 404


def is_loaded(text: str) -> bool:
    """Return whether a server that did not load an adapter has it already."""
    return _LOADED.search(text) is not None


def is_full(text: str) -> bool:
    """Return whether it has no room for one more."""
    return _FULL.search(text) is not None


def lacks_adapter(status: int | None, text: str) -> bool:
    """Return whether an answer to a request for an adapter says that it is not there.

    >>> lacks_adapter(404, ""), lacks_adapter(400, "these LoRA adapters are not loaded: legal")
    (True, True)
    """
    return status == _NOT_FOUND or (status == _BAD_REQUEST and _LACKING.search(text) is not None)
