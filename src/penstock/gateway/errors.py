"""Every way in which the worker can fail a request, but for bad questions: see `dialects`."""

from penstock.gateway.declare import downstream, infrastructure
from penstock.kit.errors import Source

# Who is calling

KEY_MISSING = downstream(
    "auth:key_missing",
    401,
    "No API key was sent. Send it as 'Authorization: Bearer <key>'.",
    conventional="invalid_api_key",
    conventional_type="authentication_error",
    cause="None of Authorization, x-api-key and api-key holds a key.",
    fix="Send the key in one of these headers.",
)
KEY_INVALID = downstream(
    "auth:key_invalid",
    401,
    "The API key is not valid.",
    conventional="invalid_api_key",
    conventional_type="authentication_error",
    cause="The key is unknown, mistyped, revoked or expired; which one is not told.",
    fix="Check the key, or ask the project's administrator for another.",
    operator="`penstock config check` lists the keys that the node serves.",
)
KEYS_CONFLICT = downstream(
    "auth:keys_conflict",
    400,
    "Two different API keys were sent. Send one.",
    cause="Two of Authorization, x-api-key and api-key hold different keys.",
    fix="Send the key in one header only.",
)

SCOPE_MISSING = downstream(
    "auth:scope_missing",
    403,
    "The API key may not do this.",
    conventional_type="permission_error",
    cause="The key's scopes do not hold what the operation needs.",
    fix="Use a key with the scope `inference` (or `models:read` to list models).",
    operator="Create a key with that scope; the scopes of a key do not change.",
)
NETWORK_NOT_ALLOWED = downstream(
    "auth:network_not_allowed",
    403,
    "The API key may not be used from this network.",
    conventional_type="permission_error",
    cause="The key has a list of CIDR blocks and the caller's address is in none.",
    fix="Call from an allowed network, or ask for yours to be added.",
    operator="Check the key's CIDR list against the address that reaches the gateway.",
)
RESIDENCY_DENIED = downstream(
    "auth:residency_denied",
    403,
    "This model runs nowhere that the data of this project may be sent to.",
    conventional_type="permission_error",
    cause="The policy of the organization or of the project allows no upstream of the model.",
    fix="Use a model that GET /v1/models lists, or ask for the policy to be changed.",
    operator=(
        "Compare data classes and regions that the organization and the project allow with those "
        "of the upstreams; an upstream without one is in none."
    ),
)
MODEL_UNPRICED = downstream(
    "auth:model_unpriced",
    403,
    "This model has no price for your organization, which pays for what it uses.",
    conventional_type="permission_error",
    cause="The organization has billing terms, and the model has no price in their currency.",
    fix="Use a model that GET /v1/models lists, or ask the operator to set a price.",
    operator=(
        "Set one in the currency of the terms: `penstock prices set --model NAME --currency EUR "
        "--input ... --output ...`; 0 is free. Or let the organization use what has no price: "
        "`penstock ledger terms set ... --unpriced allow`."
    ),
)

# The request as HTTP

MALFORMED = downstream(
    "request:malformed",
    400,
    "The request is not valid HTTP/1.1.",
    cause="Framing, header or request line break RFC 9112, or could be read in two ways.",
    fix="Use a common HTTP client; look for a proxy on the way that rewrites requests.",
)
LABELS_INVALID = downstream(
    "request:labels_invalid",
    400,
    "The labels in x-penstock-labels are malformed, too many, or may not be used.",
    cause="A label is `name=value`, its name is one that the operator lists, and there is a bound.",
    fix="Correct the header, or leave it out: labels are for reports and change nothing else.",
    operator="List the name in `labels` of the node's settings if it is to be used.",
)
HOST_INVALID = downstream(
    "request:host_invalid",
    400,
    "The Host header is missing, doubled or malformed.",
    cause="HTTP/1.1 wants exactly one Host header that names a host.",
    fix="Send one Host header.",
)
VERSION_UNSUPPORTED = downstream(
    "request:version_unsupported",
    505,
    "Only HTTP/1.1 and HTTP/1.0 are spoken here.",
    cause="The request line names another version.",
    fix="Use HTTP/1.1.",
)
HEADER_TOO_LARGE = downstream(
    "request:header_too_large",
    431,
    "The request's header is larger than 64 KiB or has more than 100 fields.",
    cause="See the limits of the reference.",
    fix="Send fewer or smaller header fields.",
)
TARGET_TOO_LONG = downstream(
    "request:target_too_long",
    414,
    "The request's target is longer than 8 KiB.",
    cause="See the limits of the reference.",
    fix="Put the data into the body.",
)
BODY_TOO_LARGE = downstream(
    "request:body_too_large",
    413,
    "The request's body is larger than 32 MiB.",
    cause="See the limits of the reference.",
    fix="Send less, e.g. smaller images or fewer inputs a request.",
)
FORM_INVALID = downstream(
    "request:form_invalid",
    400,
    "The body must be a well-formed multipart/form-data form.",
    cause="Its content type names no boundary, or parts are malformed or ambiguous.",
    fix="Have an HTTP client write the form, e.g. `curl -F`; see the message.",
)
FORM_TOO_LARGE = downstream(
    "request:form_too_large",
    413,
    "The form has too many parts, or a part or all of it is too large.",
    cause="See the limits of the reference, and `form_bytes` of the node's settings.",
    fix="Send less: a shorter recording, or one that is compressed better.",
    operator="Raise `form_bytes` of the node's settings if larger recordings shall be taken.",
)
FIELD_TOO_LATE = downstream(
    "request:field_too_late",
    400,
    "A field that decides what is done with a large form must stand before its file.",
    cause="The form is larger than 4 MiB, and it is sent on while it arrives.",
    fix="Send the fields first and the file last, as OpenAI's SDKs do.",
)
HEADER_TIMEOUT = downstream(
    "request:header_timeout",
    408,
    "The request's header did not arrive within 10 seconds.",
    retryable=True,
    cause="The connection is too slow, or the caller stopped in the middle.",
    fix="Retry on a new connection.",
)
BODY_TIMEOUT = downstream(
    "request:body_timeout",
    408,
    "The request's body stopped arriving for 30 seconds.",
    retryable=True,
    cause="The connection is too slow, or the caller stopped in the middle.",
    fix="Retry on a new connection.",
)
EXPECTATION_UNKNOWN = downstream(
    "request:expectation_unknown",
    417,
    "Only 'Expect: 100-continue' is understood.",
    cause="The Expect header holds something else.",
    fix="Leave the Expect header out.",
)
ENCODING_UNSUPPORTED = downstream(
    "request:encoding_unsupported",
    415,
    "Compressed request bodies are not accepted.",
    cause="Content-Encoding is not identity.",
    fix="Send the body uncompressed.",
)
NOT_FOUND = downstream(
    "request:not_found",
    404,
    "There is nothing at this path.",
    cause="The path is none of the API's; paths are compared exactly.",
    fix="Check the base URL; it ends in /v1.",
)
SERVICE_NOT_FOUND = downstream(
    "request:service_not_found",
    404,
    "There is no such service here.",
    cause="A health check names another service than inference.GRPCInferenceService.",
    fix="Name that one, or none.",
)
METHOD_NOT_ALLOWED = downstream(
    "request:method_not_allowed",
    405,
    "This path does not take this method; see the Allow header.",
    cause="The path exists, with other methods.",
    fix="Use a method that Allow lists.",
)

CONNECTION_FULL = downstream(
    "request:connection_full",
    429,
    "This connection's calls have too much under way. Retry when some are answered.",
    retryable=True,
    cause="Messages and answers of one connection's calls of gRPC exceed what may be held, or it "
    "watches this server's health too often.",
    fix="Wait for answers, or spread large messages over several connections.",
)

# Capacity of this node

DRAINING = infrastructure(
    "capacity:draining",
    503,
    "This node is shutting down. Retry.",
    source=Source.INTERNAL,
    cause="The worker drains: it serves those who are connected, and ends.",
    operator="None in a rolling restart; other nodes serve.",
)
JOURNAL_FULL = infrastructure(
    "capacity:journal_full",
    503,
    "This node cannot record usage at the moment. Retry.",
    source=Source.INTERNAL,
    cause="The journal's disk is full: work that could not be billed is not admitted.",
    operator="Free space on the journal's disk; admission resumes by itself.",
)
CONNECTIONS_EXHAUSTED = infrastructure(
    "capacity:connections_exhausted",
    503,
    "This node has too many connections. Retry.",
    source=Source.INTERNAL,
    cause="`max_connections` of the worker is reached, or what its open files allow.",
    operator="Add workers or nodes, or raise max_connections and the open file limit.",
)
UPSTREAM_SATURATED = infrastructure(
    "capacity:upstream_saturated",
    503,
    "The model has no free capacity at the moment. Retry.",
    cause="All connections to its endpoints are in use and the waiting line is full.",
    operator="Add endpoints, or raise max_connections of the upstream.",
)
ADAPTER_UNAVAILABLE = infrastructure(
    "capacity:adapter_unavailable",
    503,
    "The model is being loaded. Retry.",
    cause=(
        "No endpoint has the LoRA adapter just now: loading it takes longer than 10 s or failed, "
        "the engine let go of it, or the agent that has it loaded is away."
    ),
    operator="Look in the agent's log for what the engine said; have it take more adapters.",
)

# The model server

CONNECT_FAILED = infrastructure(
    "upstream:connect_failed",
    503,
    "The model cannot be reached at the moment. Retry.",
    cause="No endpoint accepted a connection.",
    operator="Check the endpoints of the upstream and the network between.",
)
CONNECT_TIMEOUT = infrastructure(
    "upstream:connect_timeout",
    504,
    "The model did not accept a connection in time.",
    cause="timeouts.connect_ms ran out, at every endpoint that was tried.",
    operator="Check the endpoints; raise timeouts.connect_ms if they are just far away.",
)
FIRST_BYTE_TIMEOUT = infrastructure(
    "upstream:first_byte_timeout",
    504,
    "The model did not begin to answer in time.",
    cause="timeouts.first_byte_ms ran out: a long queue, a very long prompt, or a hung engine.",
    operator="Look at the engine's queue; for long prompts set "
    "timeouts.first_byte_ms_per_1k_tokens.",
)
IDLE_TIMEOUT = infrastructure(
    "upstream:idle_timeout",
    504,
    "The model stopped in the middle of its answer.",
    cause="timeouts.idle_ms ran out between two reads.",
    operator="Look at the engine: preemption, a crash, or a lost network path.",
)
TOTAL_TIMEOUT = infrastructure(
    "upstream:total_timeout",
    504,
    "The answer took longer than this model allows.",
    cause="timeouts.total_ms ran out.",
    operator="Raise timeouts.total_ms if such long answers are wanted.",
)
CLOSED_EARLY = infrastructure(
    "upstream:closed_early",
    502,
    "The model server closed the connection before its answer was complete.",
    cause="The engine died, was restarted, or a proxy cut the connection.",
    operator="Look at the engine's log at that time.",
)
BAD_ANSWER = infrastructure(
    "upstream:bad_answer",
    502,
    "The model server gave an answer that is not valid.",
    cause="Not HTTP, not JSON, HTML under 200, empty, compressed, or too large.",
    operator="Check that the endpoint is a model server of the configured kind.",
)
FAILED = infrastructure(
    "upstream:failed",
    502,
    "The model server failed.",
    cause="It answered 5xx, or an error object under 200 or inside a stream.",
    operator="Look at the engine's log; the message carries its own words.",
)
OVERLOADED = infrastructure(
    "upstream:overloaded",
    429,
    "The model is overloaded. Retry.",
    cause="The engine had no room: it answered 429, 529, or 503 with words that say so.",
    operator="Add endpoints or limit what tenants may send; `overloaded_status` makes it a 503.",
)
UNAVAILABLE = infrastructure(
    "upstream:unavailable",
    503,
    "The model is not available at the moment. Retry.",
    cause="The engine, or what stands before it, answered 503 and not that it is busy.",
    operator="Look whether the engine is up and its model loaded.",
)
UNUSABLE = infrastructure(
    "upstream:unusable",
    503,
    "The gateway cannot use this model at the moment. Retry.",
    source=Source.INTERNAL,
    cause=(
        "The credential (or the CA file) of every upstream that may be used is missing or no "
        "token, no endpoint of them was found yet, or the policy of the organization or the "
        "project cannot be read."
    ),
    operator="The worker's log names what is missing; a credential takes effect once it is there.",
)
MISCONFIGURED = infrastructure(
    "upstream:misconfigured",
    502,
    "The gateway's access to this model is not set up correctly.",
    cause="The engine answered 401, 403 or 404 to the gateway: credential, path or model name.",
    operator="Check credential, endpoint path and route model of the upstream.",
    retryable=False,
    fix="Tell the platform team; give the x-request-id.",
)

# Limits and budgets

RATE_EXCEEDED = downstream(
    "limits:rate_exceeded",
    429,
    "A rate limit is reached. Retry after the time in Retry-After.",
    conventional="rate_limit_exceeded",
    conventional_type="rate_limit_error",
    retryable=True,
    cause="A hard limit of the organization, project, key or member has too little left.",
    fix="Retry after the time in Retry-After; spread requests, or ask for a larger limit.",
    operator="`penstock limits show` says what is used of which rule; raise it if it is meant.",
)
CONCURRENCY_EXCEEDED = downstream(
    "limits:concurrency_exceeded",
    429,
    "Too many requests are in flight. Retry when one of them has ended.",
    conventional="rate_limit_exceeded",
    conventional_type="rate_limit_error",
    retryable=True,
    cause="As many requests are in flight as a hard limit lets.",
    fix="Wait for answers before sending more, or ask for a larger limit.",
    operator="`penstock limits show` says what is used of which rule; raise it if it is meant.",
)
REQUEST_TOO_LARGE = downstream(
    "limits:request_too_large",
    400,
    "This request takes more than a limit gives at any time.",
    cause="What the request takes, at its estimate, is more than the whole limit.",
    fix="Send less input or a smaller max_tokens, or ask for a larger limit.",
    operator="Raise the limit if such requests are meant to be served.",
)
QUOTA_EXHAUSTED = downstream(
    "limits:quota_exhausted",
    429,
    "What is left of a budget does not pay for this request.",
    conventional="insufficient_quota",
    conventional_type="insufficient_quota",
    cause="A hard budget has less left than the request may cost.",
    fix="Ask for fewer output tokens, wait for the budget's next period, or have it raised.",
    operator="`penstock budgets show` says what is spent and held; raise the budget if need be.",
)
PRICE_MISSING = downstream(
    "limits:price_missing",
    403,
    "This model has no price in the currency of a budget that has to be kept.",
    cause="A hard budget counts requests for an alias without a price in its currency.",
    fix="Use another model, or have the platform team set a price.",
    operator="`penstock prices set` sets one.",
)
LIMITS_UNAVAILABLE = infrastructure(
    "limits:unavailable",
    503,
    "The gateway cannot tell at the moment what is left of a limit. Retry.",
    source=Source.INTERNAL,
    cause=(
        "What the worker has leased or held is used up, and the agent, the shared store or the "
        "control plane did not answer within 50 ms; or a record of limits cannot be read."
    ),
    operator="Look at the agent's log and at the shared store; soft limits let requests through.",
)

# Ends of a request that no answer can tell of

CALLER_GONE = downstream(
    "downstream:caller_gone",
    499,
    "The caller closed the connection.",
    cause="The connection was closed before the answer was complete; the engine was stopped.",
    fix="None if it was meant; else raise the client's time-out.",
)
CALLER_STALLED = downstream(
    "downstream:caller_stalled",
    499,
    "The caller took nothing of the answer for 60 seconds.",
    cause="The reader hung; the engine was stopped.",
    fix="Read the answer while it arrives.",
)
INTERRUPTED = infrastructure(
    "internal:interrupted",
    503,
    "The node stopped before the answer was complete. Retry.",
    source=Source.INTERNAL,
    cause="The worker died, the drain's grace ran out, or a bug of ours came at its end.",
    operator=(
        "Look into the node's log: for the worker's end, or for `gateway.request_failed`. Raise "
        "drain_grace_s for long streams."
    ),
)
BUG = infrastructure(
    "internal:bug",
    500,
    "The gateway failed as it was to tell how the request ended.",
    source=Source.INTERNAL,
    cause="A bug of ours. The outcome of its usage event says how the request ended before that.",
    fix="Report the x-request-id.",
    operator="Report what `gateway.request_failed` says of it in the node's log.",
)
