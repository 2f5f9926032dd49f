"""Where the data of an organization or a project may go: options, body and what is shown."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.cli.bodies import list_change
from penstock.cli.records import all_if_none

if TYPE_CHECKING:
    from penstock.cli.records import Column

DataClassOption = Annotated[
    list[str] | None,
    typer.Option(
        "--data-class",
        help="Send its data only to upstreams of this data class; repeat it for several.",
        metavar="CLASS",
        show_default=False,
    ),
]
AllDataClassesOption = Annotated[
    bool, typer.Option("--all-data-classes", help="Let its data go to upstreams of every class.")
]
RegionOption = Annotated[
    list[str] | None,
    typer.Option(
        "--region",
        help="Send its data only to upstreams in this region; repeat it for several.",
        metavar="REGION",
        show_default=False,
    ),
]
AllRegionsOption = Annotated[
    bool, typer.Option("--all-regions", help="Let its data go to upstreams in every region.")
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
