"""Finds what people mean: everything is named by its id, or by its name where that is enough."""

import re
import shlex
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import FORBIDDEN
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.cli.errors import AMBIGUOUS, NOT_FOUND, CommandError, ControlRefusedError
from penstock.cli.output import console
from penstock.cli.records import NONE

if TYPE_CHECKING:
    from penstock.cli.control_client import ControlClient, Row

ORGANIZATIONS = "/api/v1/organizations"
PROJECTS = "/api/v1/projects"
KEYS = "/api/v1/keys"
MEMBERS = "/api/v1/members"
SERVICE_ACCOUNTS = "/api/v1/service-accounts"
UPSTREAMS = "/api/v1/upstreams"
DEPLOYMENTS = "/api/v1/deployments"
ROUTES = "/api/v1/routes"
ALIASES = "/api/v1/aliases"
GRANTS = "/api/v1/grants"
CREDENTIALS = "/api/v1/credentials"
PLANS = "/api/v1/plans"
LIMITS = "/api/v1/limits"
BUDGETS = "/api/v1/budgets"
PRICES = "/api/v1/prices"
PRICE_BOOKS = "/api/v1/price_books"
HOLDS = "/api/v1/holds"
ENGINE_OPERATIONS = "/api/v1/engine_operations"
REGISTRATIONS = "/api/v1/registrations"
REGISTRATION_TOKENS = "/api/v1/registration_tokens"

CATALOG_NOUNS = {
    UPSTREAMS: "upstream",
    DEPLOYMENTS: "deployment",
    ROUTES: "route",
    ALIASES: "alias",
    GRANTS: "grant",
    CREDENTIALS: "credential",
    PLANS: "plan",
    PRICE_BOOKS: "price book",
}
"""What an object of the platform is called in a sentence."""

_ARCHIVED = "archived"
_MAX_CHOICES = 10
_MAX_LOOKUPS = 20
_SECRET = re.compile(r"ps_(?:live|test)_(?P<id>[0-9A-Za-z]{12})_[0-9A-Za-z]{38}")
_ID_FORMS = {
    ORGANIZATIONS: re.compile(r"org_[0-9A-Za-z]{12}"),
    PROJECTS: re.compile(r"prj_[0-9A-Za-z]{12}"),
    KEYS: re.compile(r"[0-9A-Za-z]{12}"),
    MEMBERS: re.compile(r"mem_[0-9A-Za-z]{12}"),
    SERVICE_ACCOUNTS: re.compile(r"sa_[0-9A-Za-z]{12}"),
    UPSTREAMS: re.compile(r"ups_[0-9A-Za-z]{12}"),
    DEPLOYMENTS: re.compile(r"dep_[0-9A-Za-z]{12}"),
    ROUTES: re.compile(r"rte_[0-9A-Za-z]{12}"),
    ALIASES: re.compile(r"als_[0-9A-Za-z]{12}"),
    CREDENTIALS: re.compile(r"crd_[0-9A-Za-z]{12}"),
    PLANS: re.compile(r"pln_[0-9A-Za-z]{12}"),
    PRICE_BOOKS: re.compile(r"pbk_(?:[0-9A-Za-z]{12}|(?:list|cost)_[A-Z]{3})"),
}

OrgOption = Annotated[
    str | None,
    typer.Option("--org", help="Organization, by name or id.", metavar="ORG", show_default=False),
]
ProjectOption = Annotated[
    str | None,
    typer.Option(
        "--project", help="Project, by name or id.", metavar="PROJECT", show_default=False
    ),
]


@dataclass(frozen=True, slots=True)
class Place:
    """What `--org` and `--project` name, as found; None for what was not named."""

    organization: "Row | None" = None
    project: "Row | None" = None

    @property
    def filters(self) -> dict[str, str]:
        """The filters of lists that keep to this place."""
        filters = {}
        if self.organization is not None:
            filters["organization_id"] = str(self.organization["id"])
        if self.project is not None:
            filters["project_id"] = str(self.project["id"])
        return filters

    @property
    def whole_organization(self) -> "Place":
        """The organization that was named, or that the project is in."""
        if self.organization is not None or self.project is None:
            return Place(self.organization)
        identifier = self.project["organization_id"]
        return Place({"id": identifier, "name": identifier})

    def holds(self, row: "Row") -> bool:
        """Return whether an object is here."""
        return all(row.get(name) == value for name, value in self.filters.items())

    @property
    def words(self) -> str:
        """Where it is, behind a noun: "" when it is anywhere."""
        places = (("project", self.project), ("organization", self.organization))
        named = [f" in {noun} {row['name']}" for noun, row in places if row is not None]
        return named[0] if named else ""


def find_place(client: "ControlClient", organization: str | None, project: str | None) -> Place:
    """Return what `--org` and `--project` name.

    Raises:
        CommandError: One of them does not exist, or the project's name is ambiguous.
    """
    found = None if organization is None else get_organization(client, organization)
    if project is None:
        return Place(organization=found)
    return Place(found, get_project(client, project, found))


def get_organization(client: "ControlClient", name: str) -> "Row":
    """Return the organization of this name or id.

    Raises:
        CommandError: There is none.
    """
    rows = _candidates(client, ORGANIZATIONS, name)
    remedy = (
        f"Create it with `penstock orgs create {shlex.quote(name)}`, or see `penstock orgs list`."
    )
    return _only(rows, f"organization {name!r}", remedy)


def get_project(client: "ControlClient", name: str, organization: "Row | None" = None) -> "Row":
    """Return the project of this name or id.

    Raises:
        CommandError: There is none, or there are several and no organization was named.
    """
    place = Place(organization)
    rows = _candidates(client, PROJECTS, name, place)
    where = shlex.quote(str(organization["name"])) if organization is not None else "ORG"
    remedy = (
        f"Create it with `penstock projects create {shlex.quote(name)} --org {where}`, or see "
        "`penstock projects list`. Projects of penstock.yaml alone are not in the database."
    )
    names = NameBook(client)
    _refuse_several(
        rows,
        f"projects {name!r}",
        lambda row: names.organization(row["organization_id"]),
        "Add --org ORG, or give the id.",
    )
    return _only(rows, f"project {name!r}{place.words}", remedy)


def get_key(client: "ControlClient", name: str, place: Place) -> "Row":
    """Return the API key of this id or name; the key itself, as callers send it, will do too.

    Keys that were revoked are found by their name when no other has it.

    Raises:
        CommandError: There is none, or there are several.
    """
    secret = _SECRET.fullmatch(name)
    # The secret goes nowhere: not to control, and not into a message.
    shown = name if secret is None else secret["id"]
    rows = _candidates(client, KEYS, shown, place)
    usable = [row for row in rows if row.get("revoked_at") is None]
    rows = usable or rows
    names = NameBook(client)
    _refuse_several(
        rows,
        f"keys {shown!r}",
        lambda row: names.project(row["project_id"]),
        "Add --project PROJECT, or give the id.",
    )
    return _only(rows, f"key {shown!r}{place.words}", "See `penstock keys list`.")


def find_usage_filters(
    client: "ControlClient", organization: str | None, project: str | None, key: str | None
) -> dict[str, str]:
    """Return the filters of usage that names mean: ids of what there is.

    From the first on that is not found, or not ours to look for, words are left as they are:
    nodes that run from a file book under names. What is not found is said on stderr, so that
    nobody takes a slip of the pen for usage of nothing.

    Raises:
        CommandError: A name is ambiguous.
    """
    named = {"organization": organization, "project": project, "key_id": key}
    filters = {name: word for name, word in named.items() if word is not None}
    try:
        place = Place()
        if organization is not None:
            place = Place(get_organization(client, organization))
            filters["organization"] = place.filters["organization_id"]
        if project is not None:
            place = Place(place.organization, get_project(client, project, place.organization))
            filters["project"] = place.filters["project_id"]
        if key is not None:
            filters["key_id"] = str(get_key(client, key, place)["id"])
    except CommandError as error:
        is_denied = isinstance(error, ControlRefusedError) and error.status == FORBIDDEN
        if error.error is not NOT_FOUND and not is_denied:
            raise
        if not is_denied:
            told = f"Note: {error} Only what a node booked under this very name is counted."
            console(is_error=True).print(told, style="yellow", markup=False)
    return filters


def find_key(
    client: "ControlClient", name: str, project: str | None, organization: str | None
) -> "Row":
    """Return the API key that an argument, `--project` and `--org` name.

    Raises:
        CommandError: One of the three does not exist, or is ambiguous.
    """
    return get_key(client, name, find_place(client, organization, project))


def get_member(client: "ControlClient", name: str, place: Place) -> "Row":
    """Return the member of this id or subject.

    Raises:
        CommandError: There is none, or there are several.
    """
    return _get_person(client, MEMBERS, name, place, word="member")


def get_service_account(client: "ControlClient", name: str, place: Place) -> "Row":
    """Return the service account of this id or name.

    Raises:
        CommandError: There is none, or there are several.
    """
    return _get_person(client, SERVICE_ACCOUNTS, name, place, word="service account")


def get_catalog_object(client: "ControlClient", path: str, name: str) -> "Row":
    """Return what the platform has of this id or name.

    Args:
        client: Who knows them.
        path: Which kind: `UPSTREAMS`, `CREDENTIALS`, ...
        name: Its name or id.

    Raises:
        CommandError: There is none.
    """
    rows = _candidates(client, path, name)
    if path != PRICE_BOOKS:  # of the others, credentials alone may be an organization's own
        rows = [row for row in rows if row.get("organization_id") is None]
    return _only(rows, *_not_found(path, name))


def get_credential(client: "ControlClient", name: str, place: Place) -> "Row":
    """Return the credential of this id or name, the platform's or an organization's.

    Raises:
        CommandError: There is none, or there are several.
    """
    rows = _candidates(client, CREDENTIALS, name, place)
    names = NameBook(client)
    _refuse_several(
        rows,
        f"credentials {name!r}",
        lambda row: names.owner(row["organization_id"]),
        "Add --org ORG, or give the id.",
    )
    what, remedy = _not_found(CREDENTIALS, name)
    return _only(rows, f"{what}{place.words}", remedy)


def _not_found(path: str, name: str) -> tuple[str, str]:
    group = path.rpartition("/")[2].replace("price_books", "prices books")
    what = f"{CATALOG_NOUNS[path]} {name!r}"
    return what, f"See `penstock {group} list`, or create it: `penstock {group} create --help`."


def _get_person(client: "ControlClient", path: str, name: str, place: Place, *, word: str) -> "Row":
    member = "subject" if path == MEMBERS else "name"
    rows = _candidates(client, path, name, place, member=member)
    if place.project is None and place.organization is not None:
        # Who names the organization alone means the role in the whole of it, if there is one.
        rows = [row for row in rows if row.get("project_id") is None] or rows
    names = NameBook(client)
    _refuse_several(
        rows,
        f"{word}s {name!r}",
        lambda row: _where(row, names),
        "Add --org ORG or --project PROJECT, or give the id.",
    )
    remedy = f"See `penstock {word.replace(' ', '-')}s list`."
    return _only(rows, f"{word} {name!r}{place.words}", remedy)


def _where(row: "Row", names: "NameBook") -> str:
    if row.get("project_id") is None:
        return names.organization(row["organization_id"])
    return f"project {names.project(row['project_id'])}"


class NameBook:
    """Tells names of ids, for people; each is asked for once, and only some of them.

    Args:
        client: Who knows them.
    """

    def __init__(self, client: "ControlClient") -> None:
        """See the class."""
        self._client = client
        self._names: dict[str, str] = {}

    def organization(self, identifier: str) -> str:
        """Return an organization's name; its id when it cannot be found."""
        return self.name(ORGANIZATIONS, identifier)

    def project(self, identifier: str) -> str:
        """Return a project's name; its id when it cannot be found."""
        return self.name(PROJECTS, identifier)

    def owner(self, identifier: str | None) -> str:
        """Return the name of the organization that owns something, or `the platform`."""
        return "the platform" if identifier is None else self.organization(identifier)

    def name(self, path: str, identifier: str | None) -> str:
        """Return the name, or subject, of an object below a path; its id when it is not found."""
        if identifier is None:
            return NONE
        if identifier not in self._names:
            if len(self._names) >= _MAX_LOOKUPS:
                return identifier
            try:
                row = self._client.find(f"{path}/{identifier}")
            except CommandError:
                # Who may see a key need not be allowed to see where it is.
                row = None
            named = {} if row is None else row
            self._names[identifier] = str(named.get("name") or named.get("subject") or identifier)
        return self._names[identifier]


def _candidates(
    client: "ControlClient",
    path: str,
    name: str,
    place: Place | None = None,
    *,
    member: str = "name",
) -> list["Row"]:
    """Return what a name or id can mean: the one of this id, else all of this name.

    What is archived is found by its id only: its name is free for others.
    """
    place = Place() if place is None else place
    if _ID_FORMS[path].fullmatch(name):
        found = client.find(f"{path}/{name}")
        if found is not None:
            return [found] if place.holds(found) else []
    # Names have one form; an identity provider's words are taken as they are.
    wanted = unicodedata.normalize("NFC", name) if member == "name" else name
    if not wanted:
        return []
    filters: Mapping[str, str] = {**place.filters, member: wanted}
    return [
        row
        for row in client.rows(path, filters)
        # A filter that was not understood must never widen what is meant.
        if row.get(member) == wanted and row.get("status") != _ARCHIVED and place.holds(row)
    ]


def _only(rows: list["Row"], what: str, remedy: str) -> "Row":
    if not rows:
        raise CommandError(NOT_FOUND, f"There is no {what}.", remedy)
    _refuse_several(rows, what, None, "Give the id.")
    return rows[0]


def _refuse_several(
    rows: list["Row"], what: str, where: "Callable[[Row], str] | None", remedy: str
) -> None:
    if len(rows) <= 1:
        return
    shown = rows[:_MAX_CHOICES]
    choices = [f"{row['id']} in {where(row)}" if where else str(row["id"]) for row in shown]
    more = ", ..." if len(rows) > len(shown) else ""
    detail = f"There are {len(rows)} {what}: {', '.join(choices)}{more}."
    raise CommandError(AMBIGUOUS, detail, remedy)
