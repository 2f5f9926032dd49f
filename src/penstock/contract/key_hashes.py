"""Hashes of API keys that move to a new pepper, on their way from a node to the control plane."""

import msgspec

MAX_PAIRS = 500
"""Keys of one report."""
HASH_BYTES = 32


class KeyHashes(msgspec.Struct, frozen=True):
    """Keys that were shown on a node and are stored under its old pepper."""

    check: bytes
    """What the node's active pepper makes of a known text: two peppers must not be mixed up."""
    pairs: tuple[tuple[bytes, bytes], ...]
    """Each key's hash under the old pepper, and under the active one."""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(KeyHashes).decode


def encode_key_hashes(report: KeyHashes) -> bytes:
    """Return the report as MessagePack."""
    return _encode(report)


def decode_key_hashes(content: bytes) -> KeyHashes:
    """Return the report that `encode_key_hashes` wrote.

    Raises:
        ValueError: Not a report, one of too many keys, or a hash that is none.
    """
    report = _decode(content)
    if len(report.pairs) > MAX_PAIRS:
        message = f"over {MAX_PAIRS} keys"
        raise ValueError(message)
    if any(len(text) != HASH_BYTES for pair in report.pairs for text in pair):
        message = f"a hash has not {HASH_BYTES} bytes"
        raise ValueError(message)
    return report
