"""What can go wrong when limits and budgets are changed, or use of them is reported."""

from functools import partial

from penstock.kit.errors import declare_refusal

_refusal = partial(declare_refusal, "limits")


LIMITS_INVALID = _refusal(
    "invalid",
    400,
    "invalid_limits",
    public="A plan or somebody's limits cannot be like this.",
    cause=(
        "A rule has a figure out of range, counts what another one counts, or names an alias or a "
        "model that is not there; or it is not said whom to limit."
    ),
    caller_action="Correct what the message names.",
)

LIMITS_EXIST = _refusal(
    "exist",
    409,
    "limits_exist",
    public="They have limits already.",
    cause="An organization, project, key, member or service account has one set of limits.",
    caller_action="Change the one that is there: find it with a filter of `/limits`.",
)

USE_REPORT_INVALID = _refusal(
    "use_report_invalid",
    400,
    "invalid_use_report",
    public="The report of used limits cannot be read.",
    cause="The body is no `UseReport`, or a bucket in it has an impossible name or figure.",
    caller_action="Bring the node to the version of the control plane.",
)

BUDGET_INVALID = _refusal(
    "budget_invalid",
    400,
    "invalid_budget",
    public="A budget cannot be like this.",
    cause="A member has a value that it cannot have, e.g. an amount of 0 or an unknown time zone.",
    caller_action="Correct the member that the message names.",
)

BUDGET_IS_WALLET = _refusal(
    "budget_is_wallet",
    409,
    "budget_is_wallet",
    public="This budget is a wallet: it is filled by the ledger, and changes with it alone.",
    cause="What an organization paid ahead is a hard budget while its billing terms are prepaid.",
    caller_action=(
        "Fill the wallet, or have the platform's operator change the organization's billing terms."
    ),
)

BUDGET_EXISTS = _refusal(
    "budget_exists",
    409,
    "budget_exists",
    public="There is such a budget already.",
    cause="An owner has one budget of a currency, period, alias and `per`.",
    caller_action="Change the one that is there: find it with a filter of `/budgets`.",
)
