"""What the control plane logs."""

from penstock.kit.logs.event import Event, Level

SETTINGS_INVALID = Event(
    "control.settings_invalid", Level.ERROR, "It is started with one JSON object as its argument."
)
CANNOT_START = Event("control.cannot_start", Level.ERROR, "It ends; `why` says what to do.")
LISTENING = Event("control.listening", Level.INFO, "It takes connections.")
SECRET_MADE = Event("control.secret_made", Level.INFO, "A secret was missing; it is in `path`.")
KEY_FILE_MISSING = Event(
    "control.key_file_missing", Level.ERROR, "Restore it from its backup: credentials need it."
)
IN_FLIGHT_LEFT = Event(
    "control.in_flight_left",
    Level.WARNING,
    "An idempotency key stays in flight until its lease ends.",
)
CHORES_LATE = Event(
    "control.chores_late",
    Level.WARNING,
    "The database is away or too slow for one; it is tried again at once.",
)
CHORE_FAILED = Event(
    "control.chore_failed", Level.ERROR, "A bug of ours; the others go on, it is tried again."
)
SECRETS_DUE = Event(
    "control.secrets_due", Level.INFO, "Rotations ended, or old secrets are still in use."
)
CHAINS_SIGNED = Event("control.chains_signed", Level.INFO, "The audit log has new checkpoints.")
PARTS_CREATED = Event("control.parts_created", Level.INFO, "Tables by day have parts to come.")
DATA_KEYS_REWRAPPED = Event(
    "control.data_keys_rewrapped", Level.INFO, "Data keys are wrapped under the newest KEK."
)
DATA_KEYS_NOT_REWRAPPED = Event(
    "control.data_keys_not_rewrapped", Level.WARNING, "The KEK's keeper cannot be asked."
)
LOG_LEVEL_NOT_AUDITED = Event(
    "control.log_level_not_audited",
    Level.WARNING,
    "The level was changed, and the database could not be told; only the log says it.",
)
ENGINE_REGISTERED = Event(
    "control.engine_registered", Level.INFO, "Requests go there until its lease ends."
)
ENGINE_WITHDRAWN = Event(
    "control.engine_withdrawn", Level.INFO, "It said so; what is on its way is finished."
)
LEASES_ENDED = Event(
    "control.leases_ended",
    Level.WARNING,
    "Engines did not renew in time and get no new requests: `penstock registrations list`.",
)
KEYS_LEAKED = Event(
    "control.keys_leaked", Level.WARNING, "Keys were found in public; ours are revoked or disabled."
)
KEY_HASHES_MOVED = Event(
    "control.key_hashes_moved", Level.INFO, "Keys are stored under the active pepper now."
)
BROKER_READ = Event("control.broker_read", Level.INFO, "Usage comes by way of a broker, too.")
BROKER_AWAY = Event(
    "control.broker_away", Level.WARNING, "No usage by way of the broker; nodes keep it meanwhile."
)
BROKER_FAILED = Event(
    "control.broker_failed", Level.ERROR, "A bug of ours; the broker is read again in a moment."
)
BROKER_FORGED = Event(
    "control.broker_forged",
    Level.ERROR,
    "A message was not written by a node: who may write there?",
)
BROKER_NOWHERE = Event(
    "control.broker_nowhere", Level.WARNING, "A batch does not say where its answer goes."
)
BROKER_WAITS = Event(
    "control.broker_waits", Level.WARNING, "A batch cannot be stored now; it comes again."
)
USAGE_NOT_SETTLED = Event(
    "control.usage_not_settled",
    Level.WARNING,
    "Stored, but with a fault of its holds; see metrics.",
)
BUDGETS_NOT_COMPARED = Event(
    "control.budgets_not_compared",
    Level.WARNING,
    "Windows and charges were not compared this time.",
)
BUDGETS_DIFFER = Event(
    "control.budgets_differ", Level.ERROR, "Windows of budgets differ from charges and holds."
)
LEDGER_NOT_VERIFIED = Event(
    "control.ledger_not_verified", Level.WARNING, "The ledger was not verified this time."
)
LEDGER_WRONG = Event(
    "control.ledger_wrong",
    Level.ERROR,
    "The ledger's rules are violated: `penstock ledger verify`.",
)
GRANTS_EXPIRED = Event("control.grants_expired", Level.INFO, "Credit grants have expired.")
WALLETS_OPENED = Event(
    "control.wallets_opened", Level.INFO, "Wallets of prepaid organizations count from now on."
)
