"""What a worker logs."""

from penstock.kit.logs.event import Event, Level

CANNOT_START = Event("gateway.cannot_start", Level.ERROR, "The worker ends; `why` says what to do.")
WORKER_READY = Event("gateway.worker_ready", Level.INFO, "The worker serves.")
FEWER_CONNECTIONS = Event(
    "gateway.fewer_connections",
    Level.INFO,
    "It takes fewer than its settings say: else files would lack for engines. Raise `ulimit -Hn`.",
)
DRAINING = Event("gateway.draining", Level.INFO, "It was told to end; streams finish.")
CREDENTIALS_MISSING = Event(
    "gateway.credentials_missing",
    Level.WARNING,
    "The agent sent none: requests that need one wait.",
)
SNAPSHOT_REJECTED = Event(
    "gateway.snapshot_rejected",
    Level.ERROR,
    "A version cannot be read; the last one is served from.",
)
RECORD_UNUSABLE = Event(
    "gateway.record_unusable", Level.ERROR, "A record of the snapshot cannot be read; update nodes."
)
CHOICE_UNUSABLE = Event(
    "gateway.choice_unusable",
    Level.ERROR,
    "A deployment's credential cannot be read; it is left out.",
)
POLICY_UNUSABLE = Event(
    "gateway.policy_unusable", Level.ERROR, "The organization's requests are refused until it can."
)
PRICES_UNUSABLE = Event(
    "gateway.prices_unusable",
    Level.ERROR,
    "An alias has prices that cannot be read; it is refused.",
)
KEY_UNUSABLE = Event(
    "gateway.key_unusable", Level.ERROR, "A key's record cannot be read; its requests are refused."
)
LIMITS_UNUSABLE = Event(
    "gateway.limits_unusable",
    Level.ERROR,
    "A key's limits cannot be read; its requests are refused.",
)
JOURNAL_STUCK = Event(
    "gateway.journal_stuck", Level.ERROR, "The journal cannot be written; requests are refused."
)
JOURNAL_NOT_AHEAD = Event(
    "gateway.journal_not_ahead", Level.ERROR, "No space for the next segment: look at the disk."
)
JOURNAL_HAS_SPACE = Event("gateway.journal_has_space", Level.INFO, "Requests are admitted again.")
JOURNAL_NOT_SYNCED = Event(
    "gateway.journal_not_synced", Level.CRITICAL, "What is on the disk is unknown: the worker ends."
)
SWEEP_FAILED = Event(
    "gateway.sweep_failed",
    Level.ERROR,
    "A bug of ours kept a connection from being looked at; the others were.",
)
REQUEST_FAILED = Event(
    "gateway.request_failed", Level.ERROR, "A bug of ours ended a request, or came at its end."
)
AGENT_LOST = Event(
    "gateway.agent_lost", Level.WARNING, "The agent is away; the worker serves on for `grace_s`."
)
AGENT_GONE = Event("gateway.agent_gone", Level.ERROR, "No agent came back; the worker drains.")
AGENT_NOT_UNDERSTOOD = Event(
    "gateway.agent_not_understood", Level.ERROR, "The agent speaks another version; it reconnects."
)
AGENT_LINK_BROKE = Event(
    "gateway.agent_link_broke", Level.ERROR, "A bug of ours: the worker ends and is replaced."
)
