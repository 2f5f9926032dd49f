"""A Kafka cluster of our own, in this process: the one that librdkafka brings for its own tests.

It speaks Kafka's protocol on a port of this machine, with topics, consumer groups and offsets; all
of it is in memory. It has no TLS, no users and no sizes that it refuses, but answers any error.
"""

import ctypes
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import confluent_kafka
from confluent_kafka import Consumer, Producer, TopicPartition

PRODUCE = 0
"""Kafka's number of the request that writes records."""
TOO_LARGE = 10
"""The same of the error that a record is larger than the server takes."""
NO_COORDINATOR = 15
"""The same of the error that a group has nobody to tell now, and may try again."""
OFFSET_COMMIT = 8
"""The same of the one that says how far a group has read."""
PARTITIONS = 4
_WAIT_S = 20.0
_VOID = (
    "group_initial_rebalance_delay_ms",
    "push_request_errors",
    "clear_request_errors",
    "broker_set_host_port",
)
"""What returns nothing, not even whether it was done."""


def _library() -> ctypes.CDLL:
    folder = Path(confluent_kafka.__file__).parents[1] / "confluent_kafka.libs"
    (path,) = folder.glob("librdkafka-*.so*")
    library = ctypes.CDLL(str(path))
    for name in ("rd_kafka_new", "rd_kafka_mock_cluster_new"):
        getattr(library, name).restype = ctypes.c_void_p
    library.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
    for name in _VOID:
        getattr(library, f"rd_kafka_mock_{name}").restype = None
    return library


class KafkaCluster:
    """A cluster with one server, which can be away for a while.

    Args:
        topics: That it has, each with `PARTITIONS` partitions.
    """

    def __init__(self, *topics: str) -> None:
        """See the class."""
        self._library = _library()
        reason = ctypes.create_string_buffer(512)
        client = self._library.rd_kafka_new(0, None, reason, ctypes.c_size_t(len(reason)))
        assert client, reason.value
        self._client = ctypes.c_void_p(client)
        self._cluster = ctypes.c_void_p(self._library.rd_kafka_mock_cluster_new(self._client, 1))
        # Groups wait three seconds for more members before their first one reads.
        self._call("group_initial_rebalance_delay_ms", 50)
        for topic in topics:
            self._call("topic_create", topic.encode(), PARTITIONS, 1)
        servers: bytes = self._library.rd_kafka_mock_cluster_bootstraps(self._cluster)
        self.servers = servers.decode()
        self.port = int(self.servers.rpartition(":")[2])

    def kill(self) -> None:
        """Let it be away: its connections break, and nobody gets a new one."""
        self._call("broker_set_down", 1)

    def start(self) -> None:
        """Let it be there again, with what it had."""
        self._call("broker_set_up", 1)

    def fail(self, request: int, *errors: int) -> None:
        """Answer the next requests of a kind with errors, by Kafka's numbers."""
        self._call("push_request_errors", request, ctypes.c_size_t(len(errors)), *errors)

    def heal(self, request: int) -> None:
        """Answer requests of a kind as they should be."""
        self._call("clear_request_errors", request)

    def advertise(self, port: int) -> None:
        """Tell clients another port than its own: that of somebody in front of it."""
        self._call("broker_set_host_port", 1, b"127.0.0.1", port)

    def close(self) -> None:
        """Stop it."""
        self._library.rd_kafka_mock_cluster_destroy(self._cluster)
        self._library.rd_kafka_destroy(self._client)

    def write(
        self,
        topic: str,
        content: bytes,
        *,
        partition: int = 0,
        key: bytes = b"",
        headers: Mapping[str, str | None],
    ) -> None:
        """Write a record as somebody else does."""
        producer = Producer({"bootstrap.servers": self.servers})
        named: dict[str, str | bytes | None] = dict(headers)
        producer.produce(topic, content, key, partition, headers=named)
        assert producer.flush(_WAIT_S) == 0

    def unread(self, group: str, topic: str) -> int:
        """Return how many records a group has not committed."""
        reader = Consumer({"bootstrap.servers": self.servers, "group.id": group})
        places = [TopicPartition(topic, number) for number in range(PARTITIONS)]
        ends = [reader.get_watermark_offsets(place, _WAIT_S)[1] for place in places]
        reader.close()
        return sum(ends) - self.committed(group, topic)

    def committed(self, group: str, topic: str) -> int:
        """Return how many records a group has committed."""
        reader = Consumer({"bootstrap.servers": self.servers, "group.id": group})
        places = [TopicPartition(topic, number) for number in range(PARTITIONS)]
        found = reader.committed(places, _WAIT_S)
        reader.close()
        return sum(max(place.offset, 0) for place in found)

    def _call(self, name: str, *arguments: Any) -> None:
        error = getattr(self._library, f"rd_kafka_mock_{name}")(self._cluster, *arguments)
        assert not error, f"{name}: {error}"


@contextmanager
def kafka_cluster(*topics: str) -> Iterator[KafkaCluster]:
    """Run a cluster."""
    cluster = KafkaCluster(*topics)
    try:
        yield cluster
    finally:
        cluster.close()
