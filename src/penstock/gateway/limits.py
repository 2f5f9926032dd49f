"""Every bound of the worker, by name, in one place (docs/reference/limits.md is made from it)."""

HEADER_BYTES = 64 * 1024
"""Request line and header fields together; more is 431."""
HEADER_FIELDS = 100
"""Header fields of a request, trailers included; more is 431, or the end of an HTTP/2 stream."""
TARGET_BYTES = 8 * 1024
"""Request target; more is 414."""
BODY_BYTES = 32 * 1024 * 1024
"""Request body; more is 413, answered before it is buffered."""
DRAINED_BODY_BYTES = 64 * 1024
"""A refused request's body up to this size is read and dropped; a larger one ends the
connection."""
PIPELINE_DEPTH = 32
"""Requests that may wait on one connection for their turn before it is no longer read."""
HEADER_DEADLINE_S = 10.0
"""From a request's first byte (or the connection's start) to the end of its header; then 408."""
BODY_IDLE_S = 30.0
"""Between two reads of a request's body; then 408."""
ARRIVAL_S = 1.0
"""How long a connection that is new may take to bring its first request once the worker drains."""
FILES_KEPT = 128
"""Of the files that a worker may open, those that no connection takes. Half of the others are for
callers' connections, if `max_connections` is not less, and half for those to engines."""
KEEP_ALIVE_S = 75.0
"""Between two requests of a connection; then it is closed."""
WRITE_STALL_S = 60.0
"""How long a caller may take nothing of a waiting answer; then the connection is closed."""
LINGER_S = 2.0
"""How long a refused caller's bytes are still read so that it sees the answer."""
WRITE_BUFFER_BYTES = 40 * 1024
"""Unsent bytes of one answer past which its engine is no longer read."""
READ_BYTES = 24 * 1024
"""Largest read from an engine; with WRITE_BUFFER_BYTES it bounds what a stream holds to 64 KiB."""
HELD_FRAME_BYTES = 8 * 1024
"""A frame longer than this is no usage chunk: it is passed on before it is complete."""
INSPECTED_FRAME_BYTES = 1024 * 1024
"""A frame longer than this is relayed without being looked into."""
ENDING_BYTES = 64 * 1024
"""Of the last event of a response that is longer than that, so much of its end is looked into."""
ANSWER_BYTES = 64 * 1024 * 1024
"""A plain (not streamed) answer of an engine; more is an upstream error."""
UPSTREAM_HEADER_BYTES = 64 * 1024
"""Header of an engine's answer; more is an upstream error."""
TRANSLATED_OUTPUT_TOKENS = 1_024
"""Most output of a request that names no `max_tokens` and is put to a text model of Triton."""
TENSORS = 1_024
"""Inputs, or outputs, of a request of the Open Inference Protocol."""
TENSOR_HEADER_BYTES = 1024 * 1024
"""Its JSON where bytes of tensors follow it; more is 400."""
TENSOR_JSON_BYTES = 8 * 1024 * 1024
"""Its JSON where the tensors are in it; more is 400."""
MESSAGE_FIELDS = 16_384
"""Fields of one message of gRPC, those of its parts included; more is INVALID_ARGUMENT."""
GRPC_SILENCE_S = 600.0
"""How long a stream of gRPC may be without a message; then it is ended. A single message has to
come as a body does."""
GRPC_HELD_BYTES = 128 * 1024 * 1024
"""Messages of the calls of one connection together, from their first byte to the end of the answer,
and answers that are one message; the call with which there are more is RESOURCE_EXHAUSTED."""
GRPC_WATCHES = 8
"""Watchers of this server's health that one connection may have, without a key; more are
RESOURCE_EXHAUSTED."""
FORM_PARTS = 64
"""Parts of a multipart form; more is 413."""
PART_HEADER_BYTES = 4 * 1024
"""Head of one part; more is 413."""
FORM_FIELD_BYTES = 64 * 1024
"""Value of a part that is no file; more is 413."""
FORM_HELD_BYTES = 4 * 1024 * 1024
"""A form up to this size is sent on when all of it is there, its fields in any order. Of a larger
one no more than this is ever held: it is sent on while it arrives, at the engine's pace, and fields
that decide what is done with it stand before the file."""
POOL_IDLE_S = 4.0
"""Age at which an idle upstream connection is not used again: below the 5 s after which common
model servers close theirs, so that a request does not meet a closing connection."""
STREAM_REST_S = 0.01
"""How long a connection must stay open behind a stream before it is used again."""
WAITING_PER_ENDPOINT = 1024
"""Requests that may wait for a connection to one endpoint; more are refused with 503."""
ATTEMPTS = 3
"""Endpoints that are tried for one request, of all choices and fallbacks together: when connecting
fails, or when one answers 429, 502, 503 or 529 before anything was shown to the caller."""
REFUSALS_KEPT = 2_000
"""Requests that were refused and of which the agent is told with the next report; more are counted
and not told."""
RETRY_SHARE = 0.2
"""Part of an upstream's requests that may be tried again after such an answer."""
RETRY_WINDOW_S = 10.0
"""Over how long that is counted: this window and the one before."""
RETRIES_AT_LEAST = 10
"""So many may be tried again in that time, however few the requests."""
ENDPOINT_RESTS_S = 10.0
"""Longest time for which an endpoint is passed over since it asked for that by `Retry-After`, while
others are there."""
ENDPOINT_COOL_DOWN_S = 2.0
"""How long an endpoint that refused a connection, or took too long, is passed over while others
are there."""
LOAD_ASKED_S = 1.0
"""At least from one report of an engine's load to the next that a worker asks for: vLLM makes all
of its metrics for each."""
LOAD_ASKED_AGAIN_S = 60.0
"""The same where a request that asked for it was answered without one."""
LOAD_BELIEVED_S = 10.0
"""How long a report counts; half as long nothing that the agent read counts beside it."""
LOAD_MOST_OFF = 75
"""How many hundredths of its weight an endpoint loses whose engine says that it is full. What
engines say is late, and may be wrong: none gets more than four times what another gets by it."""
PREFIX_LEAST_BYTES = 1024
"""Prompts that are no longer go to any endpoint; others where one that began alike went."""
PREFIX_MOST_BYTES = 256 * 1024
"""How much of a prompt's beginning is looked at."""
PREFIX_MESSAGES = 4
"""Messages that are new since the prompt before in a conversation, at most, for it to be found as a
whole; else it is found by a beginning of 1, 2, 4 ... KiB."""
PREFIX_KEEPERS = 8
"""Endpoints that are remembered for one beginning."""
PREFIX_BOOKED_S = 30.0
"""How long they are remembered for it before they begin to answer."""
PREFIX_KEPT_S = 600.0
"""The same once they did. Engines forget prompts when others need the room, and do not say it."""
PREFIX_LOAD = 1.25
"""So many times as many requests in flight as an upstream's endpoints have on average, by weight,
one of them may have by getting prompts that it had."""
PREFIX_SLACK = 4
"""And so many more: one worker has few in flight, and engines batch."""
PREFIX_HOME_SLACK = 0.5
"""How many requests more than they have on average an endpoint may have in flight to get a prompt
that begins as none before, and that all workers would send there. More would have workers agree
more often, and prompts that have nothing in common wait longer."""
READING_TOKENS = 1024
"""Of a prompt that an endpoint has yet to read, so many count as one more request there."""
READING_MOST = 64
"""And no prompt for more than so many: an image is long and soon read."""
PREFIX_TOLD_S = 2.0
"""How long what was sent counts where engines tell of their caches: they may not have told it yet.
After that, what they did not tell of is not there."""
CACHES_ASKED = 256
"""Requests of a worker that wait at a time to be told what is in engines' caches; others go by what
the worker sent where."""
CACHES_LATE = 8
"""After so many in a row that were told nothing in time, nobody waits for a while."""
CACHES_REST_S = 1.0
"""For so long; and as long until a lost connection is made again."""
CACHES_UNSENT_BYTES = 4 * 1024 * 1024
"""Of questions that the process has not taken yet; with more nobody is asked."""
ENDPOINTS_COMPARED = 16
"""Endpoints that a request looks at in an upstream of more than ENDPOINTS_SEEN."""
ENDPOINTS_SEEN = 128
"""Up to so many it looks at all."""
EJECT_AFTER = 5
"""Requests to an endpoint that fail one after the other, with nothing well between: no connection,
no answer, half of one, or one that says that the engine is broken. Then it is passed over while at
least half of its upstream's endpoints are there."""
EJECTED_S = 10.0
"""For how long. Then one request tries it out, and another one each time that this has passed."""
KNOWN_KEYS = 20_000
"""API keys that a worker remembers ready-made; past it, it forgets all and looks them up again."""
KNOWN_OFFERS = 20_000
"""Spellings of aliases, each for one project, whose deployments a worker remembers ready-made; past
it, it forgets all and looks them up again."""
KNOWN_LISTS = 256
"""Projects whose list of models a worker remembers."""
FALLBACK_DEPTH = 8
"""Fallback routes that are followed behind an alias' own."""
CREDENTIALS = 100_000
"""Opened credentials that a worker takes from its agent; more end the connection."""
CREDENTIALS_WAIT_S = 2.0
"""How long a starting worker waits for the credentials that its snapshot speaks of."""
REHASHED_WAITING = 20_000
"""Keys found under an old pepper that may wait to be reported; more are noted when used again."""
REHASHED_BATCH = 1_000
"""Keys found under an old pepper that are reported at once, every STATS_S."""
CHOICES = 128
"""Largest `n` and `best_of`."""
SWEEP_S = 0.25
"""How often deadlines are looked at: time-outs are this much late at most."""
SYNC_S = 0.01
"""Longest time from a journal write to the start of its fsync."""
JOURNAL_SEGMENTS_AHEAD = 16
"""Segments of a journal that a worker has beside the one that it writes to, as many as the ends of
its open requests need: of 16 MiB each enough for 100,000; more are refused with 503."""
STATS_S = 1.0
"""How often a worker reports its counters to the agent."""
RETRY_AFTER_S = 1
"""`Retry-After` of 503 answers."""
SANE_TOKENS = 100_000_000
"""A token count above this is an engine's mistake, not a measurement."""
ANSWER_ID_CHARS = 128
"""A longer id of an engine's answer is not recorded."""
SERVICE_TIER_CHARS = 32
"""A longer name of an engine's service tier is not recorded."""
ADAPTER_WAIT_S = 10.0
"""How long a request waits for its LoRA adapter to be loaded; then 503."""
ADAPTER_WAITING = 1_024
"""Requests that may wait so; more are 503 at once."""
ADAPTER_ASKED_S = 1.0
"""How often an agent is asked to have the same adapter loaded."""
LABELS = 16
"""Labels of a request, at most."""
LABEL_NAME_CHARS = 32
"""Of a label's name: lower-case letters, digits, `_`, `.` and `-`."""
LABEL_VALUE_CHARS = 64
"""Of a label's value: letters, digits, `_`, `.`, `-`, `:`, `/` and `+`."""
AGENT_UNSENT_BYTES = 1024 * 1024
"""Unsent bytes to an agent that does not listen, past which it is taken to be away."""
PARK_S = 0.05
"""How long a request waits for an answer about its limits; then 503, or it is let through by rules
that are not hard."""
PARKED = 4_096
"""Requests that may wait so; more are answered as if they had waited in vain."""
BELIEVED_MS = 5
"""How long the word that a limit has too little is believed before it is asked again."""
MONEY_BELIEVED_MS = 250
"""The same of a budget, whose answer comes from the database: callers who go on asking for more
than is left put no load on it."""
MONEY_REMEMBERED_MS = 2_000
"""Who waited in vain for an answer about a budget is told what was heard of it in this time."""
RETURNS_AT_ONCE = 5_000
"""Returns of leases, or of holds, in one message to the agent."""
TERMS = 256
"""Pairs of alias and model whose limits a worker remembers ready-made for a key."""
HABITS = 20_000
"""Pairs of organization and alias whose usual use a worker remembers; past it, it forgets all."""
OUTPUTS_REMEMBERED = 400
"""Requests whose output is remembered to say what is usual."""
UNSEEN_OUTPUT_TOKENS = 1_024
"""What output is estimated at while nothing was seen; less when the request names less."""
CAPPED_OUTPUT_TOKENS = 4_096
"""Most output of a request that names no `max_tokens` and counts against a hard budget; it is
written into the request. A deployment's `max_output_tokens` may be less."""
LEAST_OUTPUT_TOKENS = 16
"""A request that asks for more is refused rather than given fewer output tokens than these."""
BYTES_PER_TOKEN = 4
"""Of a body or an answer, where nobody counted: a token is taken to be as long."""
INPUT_OVERHEAD_TOKENS = 256
"""Input tokens that a model's template may add to a body's bytes, in the worst case of money."""
MEDIA_TOKENS = 20_000
"""Input tokens that one image, sound, video or file is held to be, in the worst case of money."""
QUESTION_PARTS = 64 * 1024
"""Messages, items and parts of a question of Messages or Responses; more is 400."""
QUESTION_PIECES = 1024 * 1024
"""Objects or prompts of a question that are taken apart one by one, which is more than models read.
What may have more, by the signs that begin or part them, is 400, or held to have that many."""
FORM_BYTES_PER_SOUND = 25 * 1024 * 1024
"""A form that is sent with a sound is held to be one for so many bytes, or part of them."""
ACCOUNTS = 20_000
"""Budgets that a worker remembers; past it, those it holds nothing of are forgotten."""
HOLD_IDLE_MS = 5_000
"""How long a hold on a budget is kept that no request uses."""
SCARCE_HOLD_IDLE_MS = 250
"""The same, of a budget that has little left."""
HOLD_LASTS_MS = 10_000
"""A hold that is used up sooner than this is followed by one twice as large."""
CHECK_HOLDS_MS = 1_000
"""How often it is asked whether the database is there, while something is held of budgets that
refuse requests when it is not."""
HOLD_TRUSTED_MS = 3_000
"""How long what is held of them may be spent after it was last asked and was there."""
PLENTY = 1_000
"""With this much left of every limit, callers are told of a figure that is up to TOLD_MS old."""
TOLD_MS = 10
"""How old what callers are told of their limits may be where there is plenty."""
TILL_MOST = 128
"""For how many requests of a kind limits and budgets are taken from at once, where there is
plenty."""
TILL_FEWEST = 4
"""For fewer it is not worth it: each takes for itself."""
TILL_RESTS_MS = 2
"""How long each takes for itself when there was too little for several."""
LEARNT_EVERY = 8
"""Of requests that are so frequent, one in so many tells what is usual."""
H2_STREAMS = 128
"""Requests that are under way on one HTTP/2 connection; more are refused, or wait for another."""
H2_STREAM_BYTES = 256 * 1024
"""What of one stream may be unread by who serves it; with H2_STREAMS it bounds a connection."""
H2_CONNECTION_BYTES = 1024 * 1024
"""What of one connection may be on its way to us."""
H2_FIELDS_BYTES = 16 * 1024
"""Header fields of a request or an answer, or its trailers, 32 bytes more for each; more ends the
stream."""
H2_BLOCK_BYTES = 32 * 1024
"""The same as they are sent, and as they unfold; more ends the connection."""
H2_CONTINUATIONS = 16
"""Frames in which they continue; more end the connection."""
H2_BLOCKS_KNOWN = 32
"""Header blocks that are remembered with what they mean; past it, they are read again."""
H2_IDLE_FRAMES = 1_000
"""Frames that carry nothing (pings, settings, windows, empty ones) that a peer may send in a
second, beside four for each that does; more end the connection."""
H2_RESETS = 256
"""Requests that a caller may give up in a second on one connection; more end it."""
H2_UNSENT_REPLIES = 1_000
"""Answers to such frames that may be unsent; more end the connection."""
H2_IDLE_S = 300.0
"""Without a request, or with watchers only, and without a frame; then a connection is closed."""
H2_POOL_IDLE_S = 60.0
"""The same of one to an engine."""
