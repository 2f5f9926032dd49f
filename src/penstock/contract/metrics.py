"""The node's metrics: names, labels and buckets, one home for worker, agent and reference."""

import msgspec


class Metric(msgspec.Struct, frozen=True):
    """A declared metric."""

    name: str
    kind: str
    """`counter`, `gauge` or `histogram`."""
    labels: tuple[str, ...]
    help: str
    buckets: tuple[float, ...] = ()


REQUESTS = Metric(
    "penstock_requests_total",
    "counter",
    ("organization", "model", "operation", "outcome"),
    "Requests that were sent to an engine and ended, by outcome.",
)
ERRORS = Metric(
    "penstock_errors_total", "counter", ("code",), "Error answers and failed streams, by code."
)
RETRIES = Metric(
    "penstock_retries_total",
    "counter",
    ("upstream", "reason"),
    "Attempts that were given up for another endpoint, by where and why.",
)
INPUT_TOKENS = Metric(
    "penstock_input_tokens_total",
    "counter",
    ("organization", "model", "usage_source"),
    "Input tokens of ended requests, by where the figure is from.",
)
OUTPUT_TOKENS = Metric(
    "penstock_output_tokens_total",
    "counter",
    ("organization", "model", "usage_source"),
    "Output tokens of ended requests, by where the figure is from.",
)
OVERHEAD = Metric(
    "penstock_overhead_seconds",
    "histogram",
    (),
    "Time from a request's last byte to its dispatch to an engine: what the gateway adds before.",
    (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0),
)
FIRST_BYTE = Metric(
    "penstock_first_byte_seconds",
    "histogram",
    (),
    "Time from dispatch to the first byte of the engine's answer.",
    (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)
IN_FLIGHT = Metric("penstock_requests_in_flight", "gauge", (), "Requests now on their way.")
CONNECTIONS = Metric("penstock_connections", "gauge", (), "Connections from callers now open.")
UPSTREAM_CONNECTIONS = Metric(
    "penstock_upstream_connections", "gauge", ("upstream",), "Connections to engines now open."
)
JOURNAL_RECORDS = Metric(
    "penstock_journal_records_total", "counter", (), "Records written to the journal."
)
JOURNAL_BYTES = Metric(
    "penstock_journal_bytes_total", "counter", (), "Bytes written to the journal."
)
JOURNAL_SYNCS = Metric(
    "penstock_journal_syncs_total", "counter", (), "Times the journal was synced to the disk."
)
JOURNAL_FULL = Metric(
    "penstock_journal_full", "gauge", (), "1 while requests are refused for want of journal space."
)
LIMIT_REFUSED = Metric(
    "penstock_limit_refused_total",
    "counter",
    ("organization", "metric"),
    "Requests that a hard limit or budget refused, by what it limits.",
)
LIMIT_EXCEEDED = Metric(
    "penstock_limit_exceeded_total",
    "counter",
    ("organization", "metric", "enforcement"),
    "Limits that were exceeded and let the request through, soft and shadow ones.",
)
LIMIT_UNANSWERED = Metric(
    "penstock_limit_unanswered_total",
    "counter",
    ("organization", "metric", "enforcement"),
    "Soft and shadow limits that let a request through since nobody could be asked in time.",
)
LIMIT_WAIT = Metric(
    "penstock_limit_wait_seconds",
    "histogram",
    (),
    "Time that requests waited to hear about their limits; most of them do not wait.",
    (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1),
)

WORKER_METRICS = (
    REQUESTS,
    ERRORS,
    RETRIES,
    INPUT_TOKENS,
    OUTPUT_TOKENS,
    OVERHEAD,
    FIRST_BYTE,
    IN_FLIGHT,
    CONNECTIONS,
    UPSTREAM_CONNECTIONS,
    JOURNAL_RECORDS,
    JOURNAL_BYTES,
    JOURNAL_SYNCS,
    JOURNAL_FULL,
    LIMIT_REFUSED,
    LIMIT_EXCEEDED,
    LIMIT_UNANSWERED,
    LIMIT_WAIT,
)
"""What workers report. The agent adds its own (journal lag, worker restarts, ...)."""
