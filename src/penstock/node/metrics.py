"""The agent's own metrics, beside those that workers report (`contract.metrics`)."""

from penstock.contract.metrics import Metric

WORKERS = Metric("penstock_workers", "gauge", (), "Workers that are connected and not draining.")
WORKERS_READY = Metric("penstock_workers_ready", "gauge", (), "Workers that take requests.")
WORKER_RESTARTS = Metric(
    "penstock_worker_restarts_total", "counter", (), "Times a worker died and was started again."
)
SNAPSHOT_VERSION = Metric(
    "penstock_snapshot_version", "gauge", (), "Version of the configuration that is served from."
)
CONFIG_REJECTED = Metric(
    "penstock_config_rejected",
    "gauge",
    (),
    "1 while the configuration file is not valid and the last valid one is served from.",
)
FEED_AGE = Metric(
    "penstock_feed_age_seconds",
    "gauge",
    (),
    "Time since the control plane's configuration feed was last followed to its end.",
)
FEED_LOST = Metric(
    "penstock_feed_lost",
    "gauge",
    (),
    "1 while the configuration feed was not followed for 30 s: changes do not reach the node.",
)
FEED_FAILURES = Metric(
    "penstock_feed_failures_total",
    "counter",
    (),
    "Times the configuration feed did not answer, or with what could not be used.",
)
CREDENTIALS_OPEN = Metric(
    "penstock_credentials_open", "gauge", (), "Credentials of upstreams that workers can use."
)
CREDENTIALS_UNREADABLE = Metric(
    "penstock_credentials_unreadable",
    "gauge",
    (),
    "Credentials that do not open and have to be set again: their requests are refused.",
)
CREDENTIALS_WAITING = Metric(
    "penstock_credentials_waiting",
    "gauge",
    (),
    "Credentials whose key-encryption key could not be asked; what was open before stays open.",
)
LIMITS_UP = Metric(
    "penstock_limits_authority_up",
    "gauge",
    (),
    "1 while the authority over limits answers; without it the node gives from its share.",
)
LIMITS_NODES = Metric(
    "penstock_limits_nodes",
    "gauge",
    (),
    "Nodes that share the limits, as last known; 0 when it never was.",
)
LIMITS_SHARES = Metric(
    "penstock_limits_share_leases_total",
    "counter",
    (),
    "Leases that the node gave from its share, because the shared authority could not.",
)
LIMITS_ERRORS = Metric(
    "penstock_limits_authority_errors_total",
    "counter",
    (),
    "Times the shared authority over limits did not answer in time.",
)
LIMITS_WANTS = Metric(
    "penstock_limits_wants_total", "counter", (), "Leases of limits that workers asked for."
)
LIMITS_WAIT = Metric(
    "penstock_limits_wants_seconds_total",
    "counter",
    (),
    "Time that these took in the agent, added up.",
)
LIMITS_LEASE = Metric(
    "penstock_limits_lease_ratio",
    "histogram",
    (),
    "What workers were leased at once, as a share of the limit.",
    (0.0001, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0),
)
LIMITS_USED = Metric(
    "penstock_limits_used_ratio",
    "gauge",
    ("organization",),
    "Share of its limit that the fullest of an organization's buckets was used and leased within "
    "the last minute or two; of the organizations where that is the most.",
)
LIMITS_UNANSWERED = Metric(
    "penstock_limits_unanswered_total",
    "counter",
    (),
    "Leases that nobody could decide about: hard limits refuse then.",
)
ENDPOINT_READY = Metric(
    "penstock_endpoint_ready",
    "gauge",
    ("upstream", "endpoint"),
    "1 while an endpoint says that it can be asked, 0 when it says no or cannot be reached. No "
    "series where that is not known.",
)
ENDPOINT_STRAIN = Metric(
    "penstock_endpoint_strain",
    "gauge",
    ("upstream", "endpoint"),
    "How busy an endpoint's engine says that it is, 0 to 1: the share of its requests that wait "
    "(of those that wait alone, where it does not say how many run), or of its KV cache that is "
    "used, whichever is more. No series where it says neither.",
)
ADAPTER_LOADS = Metric(
    "penstock_adapter_loads_total",
    "counter",
    ("upstream", "outcome"),
    "LoRA adapters that were loaded for requests, could not be (failed), or made room (unloaded).",
)
DISCOVERY_ENDPOINTS = Metric(
    "penstock_discovery_endpoints",
    "gauge",
    ("source",),
    "Endpoints that were found last at a source that upstreams name.",
)
DISCOVERY_AGE = Metric(
    "penstock_discovery_age_seconds",
    "gauge",
    ("source",),
    "Time since a source last said which endpoints there are; what it said stays in use.",
)
DISCOVERY_FAILURES = Metric(
    "penstock_discovery_failures_total",
    "counter",
    ("source",),
    "Times a source did not answer, or with what could not all be used.",
)
HOLD_FAILURES = Metric(
    "penstock_hold_failures_total",
    "counter",
    (),
    "Times the control plane did not answer about money to be held or given back.",
)
UNSHIPPED_RECORDS = Metric(
    "penstock_journal_unshipped_records",
    "gauge",
    (),
    "Journal records behind the last one that the usage store has acknowledged.",
)
UNSHIPPED_BYTES = Metric(
    "penstock_journal_unshipped_bytes", "gauge", (), "The size of these journal records."
)
SHIPPED_EVENTS = Metric(
    "penstock_shipped_events_total",
    "counter",
    (),
    "Usage events that the usage store has acknowledged, repeated ones included.",
)
SHIP_FAILURES = Metric(
    "penstock_ship_failures_total",
    "counter",
    (),
    "Deliveries to the usage store that failed and are tried again.",
)
SHIP_LAG = Metric(
    "penstock_ship_lag_seconds",
    "gauge",
    (),
    "Age of the oldest usage event that is read and not acknowledged; 0 when there is none.",
)
SHIP_REFUSED = Metric(
    "penstock_ship_refused_events_total",
    "counter",
    (),
    "Usage events that the usage store refused for ever and that are set aside on the disk.",
)
SHIP_SET_BACK = Metric(
    "penstock_ship_set_back_journals_total",
    "counter",
    (),
    "Journals that are shipped again, since the usage store lost something that it had.",
)
JOURNAL_DAMAGED = Metric(
    "penstock_journal_damaged_segments_total",
    "counter",
    (),
    "Journal segments found damaged: what is behind the damage is kept and not shipped.",
)
FINISHED_DROPPED = Metric(
    "penstock_finished_requests_dropped_total",
    "counter",
    (),
    "Requests that neither traces nor the access log were told of: there were too many at a time.",
)
ACCESS_LOG_DROPPED = Metric(
    "penstock_access_log_dropped_total",
    "counter",
    (),
    "Lines that the access log lacks, since its file or pipe was too slow or cannot be written.",
)
OTLP_SENT = Metric(
    "penstock_otlp_sent_total",
    "counter",
    ("signal",),
    "Spans or points of data that the collector took.",
)
OTLP_LOST = Metric(
    "penstock_otlp_lost_total",
    "counter",
    ("signal", "reason"),
    "Those that it did not take: it said so, they waited too long, or too many did.",
)
OTLP_FAILURES = Metric(
    "penstock_otlp_failures_total",
    "counter",
    ("signal",),
    "Deliveries to the collector that failed; most are tried again.",
)
_ENDPOINT = ("upstream", "endpoint")
KV_CONNECTED = Metric(
    "penstock_kv_connected",
    "gauge",
    _ENDPOINT,
    "1 while an engine that tells of its KV caches can be heard, all of its ranks.",
)
KV_BLOCKS = Metric(
    "penstock_kv_blocks", "gauge", _ENDPOINT, "Blocks that an engine's KV caches are known to have."
)
KV_EVENTS = Metric(
    "penstock_kv_events_total",
    "counter",
    _ENDPOINT,
    "Events of KV caches that were understood. As all that is counted of KV caches, it begins at 0 "
    "when the process that follows them is started again.",
)
KV_UNKNOWN = Metric(
    "penstock_kv_events_unknown_total",
    "counter",
    _ENDPOINT,
    "Events of KV caches, batches and messages of them, that were not understood.",
)
KV_GAPS = Metric(
    "penstock_kv_gaps_total",
    "counter",
    _ENDPOINT,
    "Times batches of events were missing; they were asked for again where that can be done.",
)
KV_RESETS = Metric(
    "penstock_kv_resets_total",
    "counter",
    _ENDPOINT,
    "Times all that was known of a KV cache was forgotten: the engine started anew, was not heard, "
    "or what was missing could not be had again.",
)
KV_FAILURES = Metric(
    "penstock_kv_failures_total",
    "counter",
    _ENDPOINT,
    "Times a line to an engine that tells of its KV caches could not be made, or broke by a bug. "
    "The log says why.",
)
KV_LAG = Metric(
    "penstock_kv_lag_seconds",
    "gauge",
    _ENDPOINT,
    "How old the last batch of events was when it came, by the engine's clock.",
)

AGENT_METRICS = (
    WORKERS,
    WORKERS_READY,
    WORKER_RESTARTS,
    SNAPSHOT_VERSION,
    CONFIG_REJECTED,
    FEED_AGE,
    FEED_LOST,
    FEED_FAILURES,
    CREDENTIALS_OPEN,
    CREDENTIALS_UNREADABLE,
    CREDENTIALS_WAITING,
    LIMITS_UP,
    LIMITS_NODES,
    LIMITS_SHARES,
    LIMITS_ERRORS,
    LIMITS_WANTS,
    LIMITS_WAIT,
    LIMITS_UNANSWERED,
    LIMITS_LEASE,
    LIMITS_USED,
    HOLD_FAILURES,
    ENDPOINT_READY,
    ENDPOINT_STRAIN,
    ADAPTER_LOADS,
    KV_CONNECTED,
    KV_BLOCKS,
    KV_EVENTS,
    KV_UNKNOWN,
    KV_GAPS,
    KV_RESETS,
    KV_FAILURES,
    KV_LAG,
    DISCOVERY_ENDPOINTS,
    DISCOVERY_AGE,
    DISCOVERY_FAILURES,
    UNSHIPPED_RECORDS,
    UNSHIPPED_BYTES,
    SHIPPED_EVENTS,
    SHIP_FAILURES,
    SHIP_LAG,
    SHIP_REFUSED,
    SHIP_SET_BACK,
    JOURNAL_DAMAGED,
    FINISHED_DROPPED,
    ACCESS_LOG_DROPPED,
    OTLP_SENT,
    OTLP_LOST,
    OTLP_FAILURES,
)
