"""What the commands for all kinds of catalog objects share: how these are made, shown, deleted."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.cli.bodies import NOTHING, given
from penstock.cli.instance import DataOption, connect
from penstock.cli.output import JsonOption, examples
from penstock.cli.records import (
    Column,
    YesOption,
    confirm,
    say_done,
    show_list,
    show_one,
    text_of,
    time_of,
    words_of,
)
from penstock.cli.resolving import CATALOG_NOUNS, NameBook, get_catalog_object

if TYPE_CHECKING:
    from penstock.cli.control_client import ControlClient, Row

NameArgument = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="Its name; it cannot be changed later.", show_default=False
    ),
]
NAME_AND_ID: tuple[Column, ...] = (("Name", text_of("name")), ("Id", text_of("id")))

_CREATED = "Created (UTC)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of objects of the catalog, as the commands speak of them."""

    path: str
    """Where control has them; its last part is the name of the command group."""
    columns: Callable[[NameBook], Sequence[Column]]
    """What a list shows, but for the time of creation; the book knows other objects' names."""
    fields: Callable[[NameBook], Sequence[Column]] = lambda _: ()
    """What is shown of a single one besides."""
    expendable: Sequence[str] = ()
    """Columns that a narrow terminal may miss, after the time of creation."""
    effect: str = ""
    """What comes of deleting one: the end of the sentence that is asked."""
    example: str
    """A name for the examples."""
    words: "Callable[[Row], str]" = words_of
    """What one is called in a sentence."""

    @property
    def group(self) -> str:
        """Name of the command group."""
        return self.path.rpartition("/")[2]

    @property
    def noun(self) -> str:
        """What one of them is."""
        return CATALOG_NOUNS[self.path]

    @property
    def a_noun(self) -> str:
        """The same with its article."""
        return f"{'an' if self.noun[0] in 'aou' else 'a'} {self.noun}"

    def create(self, client: "ControlClient", body: Mapping[str, Any], *, as_json: bool) -> None:
        """Create one and say so.

        Raises:
            CommandError: Control refuses it.
        """
        row = client.change("POST", self.path, body)
        say_done(row, f"Created {self.noun} {self.words(row)}.", as_json=as_json)

    def change(
        self,
        client: "ControlClient",
        before: "Row",
        changes: Mapping[str, Any],
        *,
        as_json: bool,
        version: int | None = None,
        done: str = "Changed",
    ) -> None:
        """Change members of one and say so.

        Args:
            client: Who does it.
            before: The object as it was found.
            changes: The members and their new values.
            as_json: Print the object as it is now instead.
            version: Only if it still has this version.
            done: What was done, for people.

        Raises:
            CommandError: Control refuses it.
        """
        path = f"{self.path}/{before['id']}"
        row = client.change("PATCH", path, changes, version=version)
        say_done(row, f"{done} {self.noun} {self.words(row)}.", as_json=as_json)

    def delete(self, client: "ControlClient", before: "Row", *, yes: bool, as_json: bool) -> None:
        """Delete one for ever, once it is confirmed, and say so.

        Raises:
            CommandError: It was not confirmed, or control refuses it.
        """
        what = f"{self.noun} {self.words(before)}"
        confirm(f"{what[0].upper()}{what[1:]} is deleted for ever{self.effect}.", is_confirmed=yes)
        client.change("DELETE", f"{self.path}/{before['id']}")
        gone = given(id=before["id"], name=before.get("name"), is_deleted=True)
        say_done(gone, f"Deleted {what}.", as_json=as_json)

    def show_all(
        self,
        client: "ControlClient",
        filters: Mapping[str, str],
        *,
        limit: int | None,
        as_json: bool,
    ) -> None:
        """Print those that match, oldest first.

        Raises:
            CommandError: Control refuses the question.
        """
        show_list(
            client.rows(self.path, filters),
            (*self.columns(NameBook(client)), (_CREATED, time_of("created_at"))),
            limit=limit,
            as_json=as_json,
            nothing=f"There is no {'such ' if filters else ''}{self.noun}. "
            f"Create one with `penstock {self.group} create`.",
            expendable=(_CREATED, *self.expendable),
        )

    def show(self, client: "ControlClient", row: "Row", *, as_json: bool) -> None:
        """Print all that there is to know of one."""
        names = NameBook(client)
        fields = (
            *self.columns(names),
            *self.fields(names),
            (_CREATED, time_of("created_at")),
            ("Changed (UTC)", time_of("updated_at")),
            ("Version", text_of("version")),
        )
        show_one(row, fields, as_json=as_json)


def find_id(client: "ControlClient", path: str, name: str | None) -> str | None:
    """Return the id of what an option names; None when it was not given.

    Raises:
        CommandError: There is no such object.
    """
    return None if name is None else str(get_catalog_object(client, path, name)["id"])


def clearable_reference(
    client: "ControlClient", member: str, path: str, name: str | None
) -> "dict[str, str | None]":
    """Return the member that an option sets to an id, or to None when it says `none`.

    Raises:
        CommandError: There is no such object.
    """
    if name == NOTHING:
        return {member: None}
    return {} if name is None else {member: find_id(client, path, name)}


def object_argument(kind: Kind) -> Any:
    """Return what names an object on the command line."""
    return typer.Argument(metavar=kind.noun.upper(), help="Name or id.", show_default=False)


def add_show(app: typer.Typer, kind: Kind) -> None:
    """Add `show` to a command group."""
    _add(app, kind, "show", f"Show {kind.a_noun}.", kind.show)


def add_switches(app: typer.Typer, kind: Kind) -> None:
    """Add `disable` and `enable` to a command group."""
    off = partial(kind.change, changes={"is_disabled": True}, done="Disabled")
    on = partial(kind.change, changes={"is_disabled": False}, done="Enabled")
    _add(app, kind, "disable", f"Send {kind.a_noun} no new request until it is enabled.", off)
    _add(app, kind, "enable", f"Send a disabled {kind.noun} requests again.", on)


def _add(app: typer.Typer, kind: Kind, word: str, text: str, act: "Callable[..., None]") -> None:
    """Add a command that does something with one object of a kind."""

    @app.command(word, help=text, epilog=examples(f"penstock {kind.group} {word} {kind.example}"))
    def command(
        *,
        name: Annotated[str, object_argument(kind)],
        data: DataOption = None,
        as_json: JsonOption = False,
    ) -> None:
        with connect(data) as client:
            act(client, get_catalog_object(client, kind.path, name), as_json=as_json)


def add_delete(app: typer.Typer, kind: Kind) -> None:
    """Add `delete` to a command group."""

    @app.command(
        "delete",
        help=f"Delete {kind.a_noun} for ever; refused while something else uses it.",
        epilog=examples(f"penstock {kind.group} delete {kind.example} --yes"),
    )
    def delete(
        *,
        name: Annotated[str, object_argument(kind)],
        yes: YesOption = False,
        data: DataOption = None,
        as_json: JsonOption = False,
    ) -> None:
        with connect(data) as client:
            row = get_catalog_object(client, kind.path, name)
            kind.delete(client, row, yes=yes, as_json=as_json)
