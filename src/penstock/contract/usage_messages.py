"""Batches of usage as messages on a broker, and the answers to them.

A broker carries, and is trusted with nothing: nodes and control plane prove to each other by the
node's token who wrote a message. A batch is stored when the control plane answers that it is, not
when the broker has it.
"""

import hashlib
import hmac

STREAM = "penstock-usage"
SUBJECT = "penstock.usage"
"""Begins the subjects of batches; the node's id follows."""
READER = "penstock-control"
MAC_HEADER = "Penstock-Mac"
ANSWER_HEADER = "Penstock-Answer"
"""The subject that the answer to a batch goes to."""
STORED = b"+"
"""Begins an answer; the receipt as JSON follows."""
REFUSED = b"-"
"""Begins an answer; why follows. The same batch will never be taken."""


def batch_name(content: bytes) -> str:
    """Return the name of a batch: that of its content, so it is the same when sent again."""
    return hashlib.sha256(content).hexdigest()[:32]


def batch_mac(token: bytes, subject: str, content: bytes) -> str:
    """Return the proof that a node wrote a batch.

    Args:
        token: The node's.
        subject: That the answer goes to.
        content: The batch.
    """
    return _mac(token, b"batch", subject.encode(), content)


def answer_mac(token: bytes, name: str, answer: bytes) -> str:
    """Return the proof that a control plane wrote an answer.

    Args:
        token: The node's.
        name: Of the batch.
        answer: All of it.
    """
    return _mac(token, b"answer", name.encode(), answer)


def is_same(one: str, other: str) -> bool:
    """Return whether two proofs are the same; how long it takes tells nothing."""
    return hmac.compare_digest(one.encode(), other.encode())


def _mac(token: bytes, *parts: bytes) -> str:
    # Lengths first: what ends one part must not be read as the beginning of the next.
    content = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
    return hmac.new(token, content, hashlib.sha256).hexdigest()
