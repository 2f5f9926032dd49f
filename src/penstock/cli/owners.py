"""Whom limits and budgets are for, as options say it: an organization, a project, a key."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from penstock.cli.errors import BAD_OPTION, CommandError
from penstock.cli.options import option
from penstock.cli.resolving import (
    KEYS,
    MEMBERS,
    SERVICE_ACCOUNTS,
    NameBook,
    find_place,
    get_key,
    get_member,
    get_service_account,
)

if TYPE_CHECKING:
    from penstock.cli.control_client import ControlClient, Row

KeyOption = Annotated[str | None, option("--key", "API key, by id or name.", "KEY")]
MemberOption = Annotated[str | None, option("--member", "Member, by id or subject.", "MEMBER")]
AccountOption = Annotated[
    str | None, option("--service-account", "Service account, by id or name.", "ACCOUNT")
]


@dataclass(frozen=True, slots=True)
class OwnerOptions:
    """What was said of whom it is about."""

    org: str | None = None
    project: str | None = None
    key: str | None = None
    member: str | None = None
    account: str | None = None


@dataclass(frozen=True, slots=True)
class Owner:
    """Whom it is about, as found."""

    kind: str
    """As `owner_kind` has it."""
    member: str
    """Name of the member of bodies that has the id: `key_id`."""
    id: str
    words: str
    """What it is called in a sentence."""

    @property
    def body(self) -> dict[str, str]:
        """The member of a body that names it."""
        return {self.member: self.id}

    @property
    def filters(self) -> dict[str, str]:
        """The filters of lists of what is its own."""
        return {**self.body, "owner_kind": self.kind}


def find_owner(client: "ControlClient", options: OwnerOptions) -> Owner:
    """Return whom options name; `--org` and `--project` also say where a key or person is.

    Raises:
        CommandError: Nobody, or two at once; or one does not exist.
    """
    people = (options.key, options.member, options.account)
    if sum(one is not None for one in people) > 1:
        message = "--key, --member and --service-account exclude each other."
        raise CommandError(BAD_OPTION, message)
    place = find_place(client, options.org, options.project)
    if options.key is not None:
        return _owner("key", "key_id", "key", get_key(client, options.key, place))
    if options.member is not None:
        row = get_member(client, options.member, place)
        return Owner("member", "member_id", str(row["id"]), f"member {row['subject']}")
    if options.account is not None:
        row = get_service_account(client, options.account, place)
        return _owner("member", "service_account_id", "service account", row)
    if place.project is not None:
        return _owner("project", "project_id", "project", place.project)
    if place.organization is not None:
        return _owner("organization", "organization_id", "organization", place.organization)
    raise CommandError(
        BAD_OPTION,
        "It is not said who.",
        "Add --org, --project, --key, --member or --service-account.",
    )


def name_owner(names: NameBook, row: "Row") -> str:
    """Return what the owner of limits or of a budget is called in a table."""
    if row.get("key_id"):
        return f"key {names.name(KEYS, row['key_id'])}"
    if row.get("service_account_id"):
        return f"service account {names.name(SERVICE_ACCOUNTS, row['service_account_id'])}"
    if row.get("member_id"):
        return f"member {names.name(MEMBERS, row['member_id'])}"
    if row.get("project_id"):
        return f"project {names.project(row['project_id'])}"
    return f"organization {names.organization(row['organization_id'])}"


def _owner(kind: str, member: str, noun: str, row: "Row") -> Owner:
    return Owner(kind, member, str(row["id"]), f"{noun} {row['name']}")
