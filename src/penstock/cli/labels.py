"""Labels on the command line: of API keys, and of the people and machines that they belong to."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from penstock.cli.errors import BAD_OPTION, CommandError
from penstock.cli.options import option

if TYPE_CHECKING:
    from penstock.cli.control_client import ControlClient, Row

LabelOption = Annotated[
    list[str] | None, option("--label", "Label of yours; repeat it.", "NAME=VALUE")
]
RemoveLabelOption = Annotated[
    list[str] | None, option("--remove-label", "Label to remove; repeat it.", "NAME")
]


class LabelChanges(NamedTuple):
    """Labels that are given, as `NAME=VALUE`, and names of those that are taken away."""

    added: Sequence[str] | None
    removed: Sequence[str] | None

    def applied_to(self, labels: Mapping[str, str]) -> dict[str, str]:
        """Return labels with those that are added, and without those that are removed.

        Raises:
            CommandError: As `parse_labels`.

        >>> changes = LabelChanges(added=["team=search"], removed=["stage"])
        >>> changes.applied_to({"stage": "test", "team": "ads"})
        {'team': 'search'}
        """
        kept = {name: value for name, value in labels.items() if name not in (self.removed or [])}
        return kept | parse_labels(self.added or [])


def change_labelled(
    client: "ControlClient",
    path: str,
    before: "Row",
    changes: Mapping[str, Any],
    labels: LabelChanges,
) -> "Row":
    """Change something that carries labels, and return what it is then.

    Args:
        client: Asks control.
        path: Of the collection.
        before: What it is.
        changes: Members of it that are to change.
        labels: Those of its labels that are, if any.

    Raises:
        CommandError: A label is none, control refuses, or somebody changed it meanwhile.
    """
    version = None
    if any(labels):
        changes = {**changes, "labels": labels.applied_to(before["labels"])}
        # They are made from what was read, so nobody may have changed it since.
        version = before["version"]
    return client.change("PATCH", f"{path}/{before['id']}", changes, version=version)


def parse_labels(labels: Sequence[str]) -> dict[str, str]:
    """Return labels that were given as `NAME=VALUE`.

    Raises:
        CommandError: One has no `=`, no name, or a name that another one has.

    >>> parse_labels(["stage=test", "note=a=b"])
    {'stage': 'test', 'note': 'a=b'}
    """
    found: dict[str, str] = {}
    for label in labels:
        name, separator, value = label.partition("=")
        if not separator or not name:
            raise CommandError(BAD_OPTION, f"--label {label} is no NAME=VALUE.")
        if name in found:
            raise CommandError(BAD_OPTION, f"--label {name} was given twice.")
        found[name] = value
    return found
