"""Batches of usage as messages on a broker, and the answers to them.

A broker carries, and is trusted with nothing: nodes and control plane prove to each other by the
node's token who wrote a message. A batch is stored when the control plane answers that it is, not
when the broker has it.
"""

import hashlib
import hmac
from typing import NamedTuple

STREAM = "penstock-usage"
"""The stream of batches on NATS, and the topic of Kafka."""
ANSWERS = "penstock-usage-answers"
"""The topic of answers on Kafka; NATS has a subject for each of them."""
SUBJECT = "penstock.usage"
"""Begins the subjects of batches; the node's id follows."""
READER = "penstock-control"
"""Who reads batches: a durable consumer on NATS, a consumer group on Kafka."""
MAC_HEADER = "Penstock-Mac"
ANSWER_HEADER = "Penstock-Answer"
"""Where the answer to a batch goes: a subject of NATS, a partition of Kafka."""
STORED = b"+"
"""Begins an answer; the receipt as JSON follows."""
REFUSED = b"-"
"""Begins an answer; why follows. The same batch will never be taken."""


class BatchMessage(NamedTuple):
    """A batch on a broker."""

    content: bytes
    answer_to: str
    """See `ANSWER_HEADER`."""
    mac: str


class AnswerMessage(NamedTuple):
    """What a control plane says of a batch."""

    name: str
    """Of the batch."""
    content: bytes
    """`STORED` and the receipt, or `REFUSED` and why."""
    mac: str


def batch_name(content: bytes) -> str:
    """Return the name of a batch: that of its content, so it is the same when sent again."""
    return hashlib.sha256(content).hexdigest()[:32]


def batch_mac(token: bytes, answer_to: str, content: bytes) -> str:
    """Return the proof that a node wrote a batch.

    Args:
        token: The node's.
        answer_to: Where the answer goes.
        content: The batch.
    """
    return _mac(token, b"batch", answer_to.encode(), content)


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
