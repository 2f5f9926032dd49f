"""Where the data of an organization or a project may go: options, body and what is shown."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.cli.bodies import list_change
from penstock.cli.options import option
from penstock.cli.records import all_if_none

if TYPE_CHECKING:
    from penstock.cli.records import Column

DataClassOption = Annotated[
    list[str] | None,
    option("--data-class", "Only upstreams of this class get its data; repeat it.", "CLASS"),
]
RegionOption = Annotated[
    list[str] | None,
    option("--region", "Only upstreams in this region get its data; repeat it.", "REGION"),
]
AllDataClassesOption = Annotated[
    bool, typer.Option("--all-data-classes", help="Let upstreams of every class get its data.")
]
AllRegionsOption = Annotated[
    bool, typer.Option("--all-regions", help="Let upstreams in every region get its data.")
]

RESIDENCY_FIELDS: "tuple[Column, ...]" = (
    ("Data classes", all_if_none("allowed_data_classes")),
    ("Regions", all_if_none("allowed_regions")),
)


def residency_changes(
    data_class: list[str] | None,
    all_data_classes: bool,  # noqa: FBT001  # as the options come
    region: list[str] | None,
    all_regions: bool,  # noqa: FBT001  # as above
) -> dict[str, Any]:
    """Return the members that the four options set.

    Raises:
        CommandError: Two of them exclude each other.
    """
    every_class = all_data_classes and "--all-data-classes"
    every_region = all_regions and "--all-regions"
    return {
        **list_change("allowed_data_classes", data_class, "--data-class", every_class),
        **list_change("allowed_regions", region, "--region", every_region),
    }
