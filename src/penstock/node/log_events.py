"""What an agent logs."""

from penstock.kit.logs.event import Event, Level

# Its life

AGENT_RUNNING = Event("node.agent_running", Level.INFO, "The agent runs and has its workers.")
AGENT_STOPPING = Event("node.agent_stopping", Level.INFO, "It was told to stop; streams finish.")
AGENT_STOPPED = Event("node.agent_stopped", Level.INFO, "It has ended in order.")
CANNOT_START = Event(
    "node.cannot_start", Level.CRITICAL, "The agent ends at once, `why` says what to do."
)
HOUSEKEEPING_FAILED = Event(
    "node.housekeeping_failed", Level.WARNING, "Old journals were not deleted; it is tried again."
)

# Workers

WORKER_STARTED = Event("node.worker_started", Level.INFO, "A worker's process was started.")
WORKER_CONNECTED = Event("node.worker_connected", Level.INFO, "A worker greeted the agent.")
WORKER_ADOPTED = Event(
    "node.worker_adopted", Level.INFO, "A worker of the agent before is kept as it is."
)
WORKER_SENT_AWAY = Event(
    "node.worker_sent_away", Level.INFO, "A worker of the agent before drains: settings differ now."
)
WORKER_ENDED = Event("node.worker_ended", Level.INFO, "A worker ended that was told to.")
WORKER_DIED = Event(
    "node.worker_died",
    Level.ERROR,
    "A worker ended by itself; `how` says by what. Another one is started. Its last words are in "
    "its own log.",
)
WORKER_KILLED = Event(
    "node.worker_killed", Level.ERROR, "A worker did not drain in time and was killed."
)
WORKER_CANNOT_BE_STARTED = Event(
    "node.worker_cannot_be_started", Level.ERROR, "The system says no; it is tried again."
)
WORKER_RESTART_DELAYED = Event(
    "node.worker_restart_delayed", Level.WARNING, "A worker dies again and again: a pause."
)
WORKERS_SILENT = Event(
    "node.workers_silent", Level.WARNING, "Workers live that did not greet this agent in time."
)
CONNECTION_OUTLIVES_ITS_WORKER = Event(
    "node.connection_outlives_its_worker", Level.WARNING, "Its last figures may be missing."
)
HELLO_OF_NOBODY = Event(
    "node.hello_of_nobody", Level.WARNING, "A process greeted that does not run; it is ignored."
)
HELLO_REPEATED = Event("node.hello_repeated", Level.WARNING, "A worker greeted twice.")
LINK_REFUSED = Event(
    "node.link_refused",
    Level.WARNING,
    "Somebody connected to the workers' socket and is no worker.",
)
LINK_BROKEN = Event(
    "node.link_broken", Level.WARNING, "What a worker said cannot be read; it connects again."
)

# Configuration

CONFIG_INVALID = Event(
    "node.config_invalid",
    Level.CRITICAL,
    "`penstock.yaml` has a fault, and there is none before it.",
)
CONFIG_ACCEPTED = Event("node.config_accepted", Level.INFO, "`penstock.yaml` is served from.")
CONFIG_REJECTED = Event(
    "node.config_rejected", Level.ERROR, "`penstock.yaml` has this fault; nothing of it is used."
)
CONFIG_KEPT = Event(
    "node.config_kept", Level.ERROR, "The configuration before the rejected one is served from."
)
CONFIG_NOT_SAVED = Event(
    "node.config_not_saved", Level.ERROR, "The snapshot store cannot be written: look at the disk."
)
SNAPSHOT_STORE_REMADE = Event(
    "node.snapshot_store_remade", Level.ERROR, "The store was unusable; it is filled again."
)
SNAPSHOT_APPLIED = Event("node.snapshot_applied", Level.INFO, "A worker serves from this version.")
SNAPSHOT_NOT_APPLIED_YET = Event(
    "node.snapshot_not_applied_yet", Level.WARNING, "A worker takes long to serve from a version."
)
SNAPSHOT_REJECTED = Event(
    "node.snapshot_rejected",
    Level.ERROR,
    "A worker cannot read a version and serves from the last.",
)
FEED_FOLLOWED = Event("node.feed_followed", Level.INFO, "The control plane's feed is followed.")
FEED_LOST = Event(
    "node.feed_lost",
    Level.WARNING,
    "The control plane does not answer; the node serves on from what it has.",
)
DISCOVERY_FAILED = Event(
    "node.discovery_failed", Level.WARNING, "A source of endpoints fails; what was known stays."
)
DISCOVERY_WORKS_AGAIN = Event(
    "node.discovery_works_again", Level.INFO, "A source of endpoints answers again."
)
ENDPOINTS_FOUND = Event(
    "node.endpoints_found", Level.INFO, "How many endpoints each source has now."
)
ENDPOINTS_NOT_SAVED = Event(
    "node.endpoints_not_saved", Level.ERROR, "The snapshot store cannot be written."
)
ENDPOINT_READY = Event("node.endpoint_ready", Level.WARNING, "An endpoint says it is ready again.")
ENDPOINT_NOT_READY = Event(
    "node.endpoint_not_ready", Level.WARNING, "An endpoint says it is not; others are asked."
)
ADAPTER_LOADED = Event("node.adapter_loaded", Level.INFO, "A LoRA adapter was loaded for requests.")
ADAPTER_UNLOADED = Event(
    "node.adapter_unloaded", Level.INFO, "A LoRA adapter made room for another one."
)
ADAPTER_NOT_LOADED = Event(
    "node.adapter_not_loaded", Level.WARNING, "An engine loads no LoRA adapter: `said` is why."
)

# Credentials

CREDENTIALS_OPENED = Event(
    "node.credentials_opened", Level.INFO, "Credentials of upstreams were opened or closed."
)
CREDENTIALS_LATE = Event(
    "node.credentials_late", Level.WARNING, "Their KEK's keeper takes long; workers start without."
)
CREDENTIAL_DROPPED = Event(
    "node.credential_dropped", Level.ERROR, "A credential cannot be opened; set it again."
)
KEK_NOT_ASKED = Event(
    "node.kek_not_asked", Level.WARNING, "The keeper of the KEK cannot be asked; it is tried again."
)
KEY_HASHES_REPORTED = Event(
    "node.key_hashes_reported", Level.INFO, "Keys seen under an old pepper were told of."
)
KEY_HASHES_NOT_REPORTED = Event(
    "node.key_hashes_not_reported", Level.WARNING, "They were not; it is tried again."
)

# Limits and budgets

NOTHING_LEASED = Event("node.nothing_leased", Level.DEBUG, "A worker asked for what is not there.")
LIMITS_COUNTED_IN_MEMORY = Event(
    "node.limits_counted_in_memory", Level.ERROR, "The file of counts cannot be used."
)
COUNTS_OF_LIMITS_DAMAGED = Event(
    "node.counts_of_limits_damaged", Level.ERROR, "The file of counts is set aside."
)
LIMITS_COUNT_AS_USED = Event(
    "node.limits_count_as_used", Level.WARNING, "Counts were lost: nothing is given for a window."
)
COUNTS_OF_LIMITS_NOT_SYNCED = Event(
    "node.counts_of_limits_not_synced", Level.WARNING, "They are not on the disk yet."
)
COUNTS_OF_LIMITS_NOT_PUT_RIGHT = Event(
    "node.counts_of_limits_not_put_right", Level.WARNING, "A worker's return was not counted."
)
LIMITS_NOT_SHARED_YET = Event(
    "node.limits_not_shared_yet",
    Level.WARNING,
    "The server that shares limits between nodes does not answer.",
)
USE_OF_LIMITS_NOT_REPORTED = Event(
    "node.use_of_limits_not_reported", Level.WARNING, "The control plane shows older figures."
)
NOTHING_HELD = Event(
    "node.nothing_held", Level.WARNING, "The control plane refuses to hold money; see `error`."
)
HOLD_UNKNOWN = Event(
    "node.hold_unknown", Level.WARNING, "No answer says whether money is held; it is given back."
)
HOLDS_NOT_GIVEN_BACK = Event(
    "node.holds_not_given_back", Level.WARNING, "Not yet: the control plane does not answer."
)
FREED_HOLDS_REFUSED = Event(
    "node.freed_holds_refused", Level.ERROR, "The control plane does not take money back."
)

# Usage

REQUEST_ENDED = Event(
    "node.request_ended",
    Level.INFO,
    "A line of the access log: what became of a request.",
)
ACCESS_LOG_NOT_WRITTEN = Event(
    "node.access_log_not_written", Level.ERROR, "Its file cannot be written; lines are missing."
)
JOURNAL_SHIPPED = Event("node.journal_shipped", Level.INFO, "All of an ended worker's is stored.")
JOURNAL_DELETED = Event("node.journal_deleted", Level.INFO, "A shipped journal was old enough.")
JOURNAL_LOST = Event(
    "node.journal_lost", Level.ERROR, "Somebody deleted a journal before it was shipped."
)
JOURNAL_NOT_READ = Event(
    "node.journal_not_read", Level.WARNING, "For telemetry; shipping of usage does not need it."
)
FINISHED_REQUESTS_NOT_READ = Event(
    "node.finished_requests_not_read", Level.WARNING, "Traces and access log lack some requests."
)
TELEMETRY_OFF = Event(
    "node.telemetry_off", Level.WARNING, "Variables of OpenTelemetry are not good: nothing is sent."
)
TELEMETRY_NOT_TAKEN = Event(
    "node.telemetry_not_taken", Level.WARNING, "The collector did not take spans or points."
)
JOURNAL_DAMAGED = Event(
    "node.journal_damaged", Level.ERROR, "Segments cannot be read to their end; they are kept."
)
USAGE_NOT_SHIPPED = Event(
    "node.usage_not_shipped", Level.WARNING, "A batch was not stored; it is sent again."
)
USAGE_LEFT = Event(
    "node.usage_left", Level.WARNING, "The agent ends before all is shipped; the next one goes on."
)
USAGE_CONFLICTS = Event(
    "node.usage_conflicts", Level.WARNING, "The store has other events under these ids."
)
USAGE_EVENT_REFUSED = Event(
    "node.usage_event_refused", Level.ERROR, "It is kept in `shipper/refused.journal`."
)
STORE_NOT_ASKED = Event(
    "node.store_not_asked", Level.WARNING, "How far journals are stored is not known now."
)
USAGE_STORE_SET_BACK = Event(
    "node.usage_store_set_back",
    Level.ERROR,
    "It has less than it had: what it lacks is sent again.",
)
USAGE_NOT_ON_DISK = Event(
    "node.usage_not_on_disk", Level.ERROR, "What the store lost is not on this node any more."
)

# Operations of engines

OPERATION_DONE = Event("node.operation_done", Level.INFO, "An engine was told what was asked for.")
OPERATIONS_NOT_ASKED_FOR = Event(
    "node.operations_not_asked_for", Level.WARNING, "The control plane does not answer."
)
OUTCOME_REFUSED = Event(
    "node.outcome_refused", Level.WARNING, "The control plane does not take an outcome."
)
OUTCOME_NOT_REPORTED = Event(
    "node.outcome_not_reported", Level.WARNING, "Not yet; it is tried again."
)

# KV caches of engines

CACHES_CANNOT_BE_STARTED = Event(
    "node.caches_cannot_be_started",
    Level.ERROR,
    "The process that follows engines' KV caches does not start; it is tried again.",
)
CACHES_DIED = Event(
    "node.caches_died",
    Level.ERROR,
    "The process that follows engines' KV caches ended by itself; it is started again.",
)
KV_EVENTS_FAIL = Event(
    "node.kv_events_fail",
    Level.WARNING,
    "Where an engine publishes events of its KV caches cannot be used; it is tried again.",
)
KV_EVENTS_LINE_BROKE = Event(
    "node.kv_events_line_broke",
    Level.ERROR,
    "A line to an engine that tells of its KV caches broke by a bug: all that is known of them is "
    "forgotten, and the line is made again.",
)
KV_EVENTS_OF_TOO_MANY = Event(
    "node.kv_events_of_too_many",
    Level.ERROR,
    "More engines tell of their KV caches than the process can have lines to; the rest are not "
    "followed. Allow more open files, or follow fewer engines on a node.",
)
KV_EVENTS_WANT_A_PACKAGE = Event(
    "node.kv_events_want_a_package",
    Level.ERROR,
    "Upstreams say where engines tell of their KV caches; install penstock[kv-events].",
)
TOKENIZER_UNUSABLE = Event(
    "node.tokenizer_unusable",
    Level.ERROR,
    "A deployment's tokenizer cannot be used: prompts go where workers sent such before.",
)
CACHES_NOT_ASKED_WELL = Event(
    "node.caches_not_asked_well",
    Level.WARNING,
    "What a worker asked of KV caches cannot be read; it connects again.",
)
