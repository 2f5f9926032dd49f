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
    "penstock_errors_total",
    "counter",
    ("code", "class", "side"),
    "Error answers and failed streams, by code; the class is the code's third part, the side is "
    "whose fault it is: `caller`, `gateway` or `engine`.",
)
RETRIES = Metric(
    "penstock_retries_total",
    "counter",
    ("upstream", "reason"),
    "Attempts that were given up for another endpoint, by where and why.",
)
PREFIX_CHOICES = Metric(
    "penstock_prefix_choices_total",
    "counter",
    ("upstream", "choice"),
    "Attempts by how their prompts' beginnings were known among an upstream's endpoints: `known` "
    "went to one that had it, `passed` to another since those were too busy or away, of `new` "
    "no endpoint had it.",
)
CACHE_ANSWERS = Metric(
    "penstock_cache_answers_total",
    "counter",
    ("upstream", "answer"),
    "Requests by what they were told of engines' KV caches: `told` where some endpoint had their "
    "prompt, `none` where none is known to have it, `late` when nobody said it in time, `unasked` "
    "when nobody could be asked.",
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
TOKEN_PARTS = Metric(
    "penstock_token_parts_total",
    "counter",
    ("organization", "model", "part"),
    "Tokens that are among the input or output tokens above, by what they are.",
)
OVERHEAD = Metric(
    "penstock_overhead_seconds",
    "histogram",
    (),
    "Time from a request's last byte to its dispatch to an engine: what the gateway adds before.",
    (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0),
)

# The semantic conventions of OpenTelemetry for generative AI say these bounds; the last two of the
# first are ours, since a queue of an engine may be longer than 10 s.
_FIRST_TOKEN_S = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 30.0, 60.0),
)
_DURATION_S = tuple(0.01 * 2**power for power in range(14))
_TOKEN_S = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
_TOKENS = tuple(float(4**power) for power in range(14))
_GEN_AI = ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model")

FIRST_BYTE = Metric(
    "penstock_first_byte_seconds",
    "histogram",
    ("upstream",),
    "Time from admission to the first byte of the engine's answer, of a stream to its first event.",
    _FIRST_TOKEN_S,
)
FIRST_TOKEN = Metric(
    "gen_ai_server_time_to_first_token_seconds",
    "histogram",
    _GEN_AI,
    "Time from admission of a stream to its first event.",
    _FIRST_TOKEN_S,
)
ORGANIZATION_FIRST_TOKEN = Metric(
    "penstock_organization_first_token_seconds",
    "histogram",
    ("organization",),
    "Time from admission of a stream to its first event, by organization.",
    _FIRST_TOKEN_S,
)
TOKEN_TIME = Metric(
    "gen_ai_server_time_per_output_token_seconds",
    "histogram",
    _GEN_AI,
    "Time from one output token to the next of streams that ended well, behind the first event.",
    _TOKEN_S,
)
DURATION = Metric(
    "gen_ai_server_request_duration_seconds",
    "histogram",
    (*_GEN_AI, "error_type"),
    "Time from admission to the end of a request; the error is its outcome where that is not `ok`.",
    _DURATION_S,
)
ORGANIZATION_DURATION = Metric(
    "penstock_organization_request_duration_seconds",
    "histogram",
    ("organization",),
    "Time from admission to the end of a request, by organization.",
    _DURATION_S,
)
UPSTREAM_DURATION = Metric(
    "penstock_upstream_request_duration_seconds",
    "histogram",
    ("upstream",),
    "Time from admission to the end of a request, by upstream.",
    _DURATION_S,
)
TOKEN_USAGE = Metric(
    "gen_ai_client_token_usage",
    "histogram",
    (*_GEN_AI, "gen_ai_token_type"),
    "Tokens of a request, `input` or `output`, where they were counted and not estimated.",
    _TOKENS,
)
UPSTREAM_REQUESTS = Metric(
    "penstock_upstream_requests_total",
    "counter",
    ("upstream", "outcome"),
    "Requests that were sent to an engine and ended, by outcome.",
)
IN_FLIGHT = Metric("penstock_requests_in_flight", "gauge", (), "Requests now on their way.")
CONNECTIONS = Metric("penstock_connections", "gauge", (), "Connections from callers now open.")
UPSTREAM_CONNECTIONS = Metric(
    "penstock_upstream_connections", "gauge", ("upstream",), "Connections to engines now open."
)
UPSTREAM_IN_FLIGHT = Metric(
    "penstock_upstream_requests_in_flight",
    "gauge",
    ("upstream",),
    "Requests now on their way to an engine or answered by it.",
)
MODEL_IN_FLIGHT = Metric(
    "penstock_model_requests_in_flight",
    "gauge",
    ("model",),
    "Admitted requests that are not answered to the end, those that wait for limits included.",
)
UPSTREAM_WAITING = Metric(
    "penstock_upstream_requests_waiting",
    "gauge",
    ("upstream",),
    "Those of them that wait for a connection: one that is being made, or for one to become free.",
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
JOURNAL_SYNC = Metric(
    "penstock_journal_sync_seconds",
    "histogram",
    (),
    "Time that a sync of the journal took, until the worker knew of it.",
    (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5),
)
JOURNAL_WAITING = Metric(
    "penstock_journal_waiting_bytes",
    "gauge",
    (),
    "Bytes of records that workers could not write yet.",
)
JOURNAL_FULL = Metric(
    "penstock_journal_full", "gauge", (), "1 while requests are refused for want of journal space."
)
LIMIT_ALLOWED = Metric(
    "penstock_limit_allowed_total",
    "counter",
    ("organization",),
    "Requests that limits or budgets apply to, and that were let in and ended.",
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
LIMIT_WAITING = Metric(
    "penstock_limit_waiting", "gauge", (), "Requests that now wait to hear about their limits."
)
LOOP_LAG = Metric(
    "penstock_loop_lag_seconds",
    "histogram",
    ("process",),
    "How late a timer of a process was: how long everything in it waits for its turn.",
    (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5),
)
GC_PAUSE = Metric(
    "penstock_gc_pause_seconds",
    "histogram",
    ("process", "generation"),
    "How long a process stood still for a collection of garbage.",
    (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25),
)

PROCESS_MEMORY = Metric(
    "penstock_process_memory_bytes", "gauge", ("process",), "Resident memory of a process."
)
PROCESS_CPU = Metric(
    "penstock_process_cpu_seconds_total",
    "counter",
    ("process",),
    "Processor time of a process since its start.",
)
PROCESS_FILES = Metric(
    "penstock_process_open_files",
    "gauge",
    ("process",),
    "Open files and connections of a process.",
)
BUILD_INFO = Metric(
    "penstock_build_info",
    "gauge",
    ("version", "python_version"),
    "1; the labels say what runs.",
)

WORKER_METRICS = (
    REQUESTS,
    ERRORS,
    RETRIES,
    PREFIX_CHOICES,
    CACHE_ANSWERS,
    INPUT_TOKENS,
    OUTPUT_TOKENS,
    TOKEN_PARTS,
    OVERHEAD,
    FIRST_BYTE,
    FIRST_TOKEN,
    ORGANIZATION_FIRST_TOKEN,
    TOKEN_TIME,
    DURATION,
    ORGANIZATION_DURATION,
    UPSTREAM_DURATION,
    TOKEN_USAGE,
    UPSTREAM_REQUESTS,
    IN_FLIGHT,
    UPSTREAM_IN_FLIGHT,
    UPSTREAM_WAITING,
    MODEL_IN_FLIGHT,
    CONNECTIONS,
    UPSTREAM_CONNECTIONS,
    JOURNAL_RECORDS,
    JOURNAL_BYTES,
    JOURNAL_SYNCS,
    JOURNAL_SYNC,
    JOURNAL_WAITING,
    JOURNAL_FULL,
    LIMIT_ALLOWED,
    LIMIT_REFUSED,
    LIMIT_EXCEEDED,
    LIMIT_UNANSWERED,
    LIMIT_WAIT,
    LIMIT_WAITING,
    LOOP_LAG,
    GC_PAUSE,
)
"""What workers report. The agent adds its own (journal lag, worker restarts, ...)."""
PROCESS_METRICS = (PROCESS_MEMORY, PROCESS_CPU, PROCESS_FILES, BUILD_INFO)
"""What agent and control plane say of the processes that they know."""
