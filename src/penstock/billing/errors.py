"""What can go wrong with invoices, as far as callers are to blame."""

from functools import partial

from penstock.kit.errors import declare_refusal

_refusal = partial(declare_refusal, "billing")


BILLING_INVALID = _refusal(
    "invalid",
    400,
    "invalid_billing_request",
    public="Particulars or an invoice cannot be like this.",
    cause=(
        "A member has a value that it cannot have, e.g. a VAT id without a country, a reason for a "
        "rate that is taxed, or a month that is not over."
    ),
    caller_action="Correct the member that the message names.",
)

INVOICE_EXISTS = _refusal(
    "exists",
    409,
    "invoice_exists",
    public="There is an invoice over this month.",
    cause="An organization has one invoice for a month and currency that is not void.",
    caller_action="What came later is on the next month's invoice; or take this one back first.",
)

INVOICE_STATE = _refusal(
    "state",
    409,
    "invoice_state",
    public="The invoice is in another state.",
    cause=(
        "Only a draft is finalized; only a final invoice is paid or taken back, and only once; a "
        "credit note is neither."
    ),
    caller_action="Read the invoice: `state` says what it is.",
)

INVOICE_EARLY = _refusal(
    "early",
    409,
    "invoice_early",
    public="The month of the invoice was over too short a time ago.",
    cause="Usage of its last hours may still be on its way; `billing_grace_s` says how long.",
    caller_action="Finalize it after the time that the message names.",
)

INVOICE_EMPTY = _refusal(
    "empty",
    409,
    "invoice_empty",
    public="There is nothing to ask for.",
    cause=(
        "Nothing was charged until the end of the month that is on no other invoice, or more was "
        "taken back than charged: that is on the next invoice, too."
    ),
    caller_action="None: finalize the next month's.",
)

INVOICE_UNBALANCED = _refusal(
    "unbalanced",
    409,
    "invoice_unbalanced",
    public="What was used is not what is booked.",
    cause="The lines of the invoice add up to something else than its charges: books are damaged.",
    caller_action="See what `penstock ledger verify` finds, and finalize when it finds nothing.",
)

PARTICULARS_MISSING = _refusal(
    "particulars_missing",
    409,
    "particulars_missing",
    public="It is not known who the invoice is from, or to.",
    cause=(
        "The issuer or the organization has no particulars, or those of both do not go together "
        "for the organization's VAT category."
    ),
    caller_action="Set what the message names, and finalize again.",
)

EINVOICE_UNAVAILABLE = _refusal(
    "einvoice_unavailable",
    409,
    "einvoice_unavailable",
    public="This invoice cannot be had as XML.",
    cause=(
        "It is a draft, the control plane lacks the extra `einvoice`, or the currency is paid in "
        "three decimals, which EN 16931 does not know."
    ),
    caller_action="Read its `content`; or have the extra installed.",
)
