"""A body taken apart into its top-level members, for the first time. Pure."""

import sys
from typing import Final

import msgspec

from penstock.gateway.dialects.errors import BODY_NOT_JSON
from penstock.kit.errors import Refusal

Members = dict[str, msgspec.Raw]

_NOT_JSON: Final = Refusal(BODY_NOT_JSON)
_CALLS_LEFT: Final = 64
"""How much further down the stack members may be read again."""
_decode = msgspec.json.Decoder(Members).decode


def read_members(body: bytes) -> Members | Refusal:
    """Return the members of a JSON object, each once.

    How deeply JSON may be nested depends on the stack above its reader. So this one has less than
    there is: what it takes, everybody who reads it later can read, too.
    """
    most = sys.getrecursionlimit()
    sys.setrecursionlimit(most - _CALLS_LEFT)
    try:
        members = _decode(body)
        if not body.isascii():
            body.decode()  # the split does not look into strings
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return _NOT_JSON
    finally:
        sys.setrecursionlimit(most)
    return members
