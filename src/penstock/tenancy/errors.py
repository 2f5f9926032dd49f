"""What can go wrong when organizations and their parts are changed."""

from functools import partial

from penstock.kit.errors import declare_refusal

_refusal = partial(declare_refusal, "tenancy")


NAME_INVALID = _refusal(
    "name_invalid",
    400,
    "invalid_name",
    public="The name cannot be used.",
    cause="It is empty, over 128 characters, surrounded by space, or has invisible characters.",
    caller_action="Send 1 to 128 visible characters of any script, without space around them.",
)

NAME_TAKEN = _refusal(
    "name_taken",
    409,
    "name_taken",
    public="There is one of this name already.",
    cause="Another object of the same kind and in the same place has exactly this name.",
    caller_action="Choose another name, or use the object that has it; archived ones free theirs.",
)

SUBJECT_INVALID = _refusal(
    "subject_invalid",
    400,
    "invalid_subject",
    public="The subject cannot be used.",
    cause="It is empty, over 255 characters, surrounded by space, or has invisible characters.",
    caller_action="Send the `sub` of the identity provider as it is.",
)

EMAIL_INVALID = _refusal(
    "email_invalid",
    400,
    "invalid_email",
    public="The e-mail address cannot be used.",
    cause="It is not of the form name@host.example, or longer than 254 characters.",
    caller_action="Correct the address, or leave it out.",
)

ROLE_INVALID = _refusal(
    "role_invalid",
    400,
    "invalid_role",
    public="The role cannot be given here.",
    cause="It is none of the roles, or one of the organization given for a single project.",
    caller_action="Choose one of the roles that the message lists.",
)

LABELS_INVALID = _refusal(
    "labels_invalid",
    400,
    "invalid_labels",
    public="The labels cannot be used.",
    cause="There are over 32, or a name or value is not of the form that labels have.",
    caller_action="Correct what the message names.",
)

MEMBER_EXISTS = _refusal(
    "member_exists",
    409,
    "member_exists",
    public="This subject is a member there already.",
    cause="A subject has one role in an organization, and one in each project.",
    caller_action="Update the member that is there.",
)

POLICY_INVALID = _refusal(
    "policy_invalid",
    400,
    "invalid_policy",
    public="The allowed data classes or regions cannot be used.",
    cause="There are over 100, or one is not of the form that upstreams have theirs in.",
    caller_action="Send at most 100 names of 1 to 63 of a-z, 0-9 and . _ -, or null for all.",
)

STATUS_CONFLICT = _refusal(
    "status_conflict",
    409,
    "status_conflict",
    public="The object's status does not allow this.",
    cause="It is archived, which is final, or suspended where it must be active.",
    caller_action="Look at its `status`; resume it first, or create a new one.",
)
