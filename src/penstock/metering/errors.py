"""What can go wrong when usage is stored or asked for."""

from penstock.kit.errors import ErrorCode, Source

BATCH_INVALID = ErrorCode(
    code="err:control:metering:batch_invalid",
    status=400,
    source=Source.DOWNSTREAM,
    retryable=False,
    public="The body is not a batch of usage events.",
    conventional_type="invalid_request_error",
    conventional_code="invalid_body",
    cause=(
        "The body is not the MessagePack of a usage batch, or an event in it cannot be true: "
        "a negative count, a time out of range, an id that is empty or too long."
    ),
    caller_action="Keep the batch, report it, and ship the events of it that are sound.",
    operator_action="Compare the versions of node and control plane; report the detail as a bug.",
)

BATCH_TOO_LARGE = ErrorCode(
    code="err:control:metering:batch_too_large",
    status=413,
    source=Source.DOWNSTREAM,
    retryable=False,
    public="The batch has more than 500 events or 8 MiB.",
    conventional_type="invalid_request_error",
    conventional_code="request_too_large",
    cause="A node sent more in one batch than the contract allows.",
    caller_action="Split the batch; the events count once however they are split.",
    operator_action="Compare the versions of node and control plane.",
)

CURSOR_INVALID = ErrorCode(
    code="err:control:metering:cursor_invalid",
    status=400,
    source=Source.DOWNSTREAM,
    retryable=False,
    public="The cursor is not one that this listing gave out.",
    conventional_type="invalid_request_error",
    conventional_code="invalid_cursor",
    cause="`cursor` was made up, cut off or decoded once too often.",
    caller_action="Pass `next_cursor` of the last answer unchanged, or leave `cursor` out.",
    operator_action="None.",
)

PLACES_INVALID = ErrorCode(
    code="err:control:metering:places_invalid",
    status=400,
    source=Source.DOWNSTREAM,
    retryable=False,
    public="The body is not a question for places of journals.",
    conventional_type="invalid_request_error",
    conventional_code="invalid_body",
    cause="The body is not the MessagePack of a `PlacesQuestion`, or asks for none or over 500.",
    caller_action="Ship without asking: events that are stored already count once.",
    operator_action="Compare the versions of node and control plane.",
)

GROUPING_UNKNOWN = ErrorCode(
    code="err:control:metering:grouping_unknown",
    status=400,
    source=Source.DOWNSTREAM,
    retryable=False,
    public="Figures are not kept in the way that they are asked for.",
    conventional_type="invalid_request_error",
    conventional_code="invalid_grouping",
    cause=(
        "Figures of labels are kept by day, organization and model; they cannot be asked for by "
        "hour, or together with a project, a key, a data class or a region. So who may see a "
        "single project only cannot ask for them."
    ),
    caller_action="Leave out what the message names, or ask without a label.",
    operator_action="None.",
)

SPAN_TOO_LONG = ErrorCode(
    code="err:control:metering:span_too_long",
    status=400,
    source=Source.DOWNSTREAM,
    retryable=False,
    public="More time is asked for than is answered at once.",
    conventional_type="invalid_request_error",
    conventional_code="invalid_span",
    cause="Histograms of latency are added up one by one, and a span of many months has too many.",
    caller_action="Ask for one month after the other: `since` and `until`.",
    operator_action="None.",
)
