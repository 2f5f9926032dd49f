"""What can go wrong with exports."""

from penstock.kit.errors import ErrorCode, Source

FORMAT_UNAVAILABLE = ErrorCode(
    code="err:control:exports:format_unavailable",
    status=400,
    source=Source.DOWNSTREAM,
    retryable=False,
    public="This control plane cannot write Parquet.",
    conventional_type="invalid_request_error",
    conventional_code="format_unavailable",
    cause="Parquet needs the optional package `pyarrow`, and it is not installed.",
    caller_action="Ask for `csv` or `jsonl`, or the operator to install it.",
    operator_action="Install `penstock[parquet]` where the control plane runs.",
)

SPAN_MISSING = ErrorCode(
    code="err:control:exports:span_missing",
    status=400,
    source=Source.DOWNSTREAM,
    retryable=False,
    public="FOCUS rows are written for a span of at most 366 days.",
    conventional_type="invalid_request_error",
    conventional_code="span_missing",
    cause="`since` or `until` is missing, or they are in the wrong order or too far apart.",
    caller_action="Give both, e.g. the first moments of a month and of the next one.",
    operator_action="None.",
)
