"""What can go wrong when limits are changed, or their use is reported."""

from penstock.kit.errors import ErrorCode, Source


def _refusal(
    name: str, status: int, word: str, *, public: str, cause: str, caller_action: str
) -> ErrorCode:
    return ErrorCode(
        code=f"err:control:limits:{name}",
        status=status,
        source=Source.DOWNSTREAM,
        retryable=False,
        public=public,
        conventional_type="invalid_request_error",
        conventional_code=word,
        cause=cause,
        caller_action=caller_action,
        operator_action="None: the caller's request is at fault.",
    )


BUDGET_INVALID = _refusal(
    "budget_invalid",
    400,
    "invalid_budget",
    public="A budget cannot be like this.",
    cause="A member has a value that it cannot have, e.g. an amount of 0 or an unknown time zone.",
    caller_action="Correct the member that the message names.",
)

BUDGET_EXISTS = _refusal(
    "budget_exists",
    409,
    "budget_exists",
    public="There is such a budget already.",
    cause="An owner has one budget of a currency, period, alias and `per`.",
    caller_action="Change the one that is there: find it with a filter of `/budgets`.",
)
