"""What events add to the figures of hours, days and labels: pure, no clock, no I/O."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from penstock.contract.usage import METERS, Meter, UsageEvent, quantities
from penstock.metering.bucket_rules import bucket_start
from penstock.metering.model import Cell, Figures, LabelCell, ProjectCell

EMBEDDINGS = "embeddings"
"""The operation whose figures are kept by themselves, too."""
_PLACES = {meter: place for place, meter in enumerate(METERS)}


def add_up(
    events: Iterable[UsageEvent],
    count: Callable[[UsageEvent], Mapping[Meter, int]] = quantities,
) -> Figures:
    """Return what events add to each cell; their time of admission says to which.

    No token is on two meters. Where a caller names a label and value twice, it counts once.

    Args:
        events: Which.
        count: Says what each counts; of a correction, the difference.
    """
    hours: dict[Cell, list[int]] = {}
    days: dict[Cell, list[int]] = {}
    label_days: dict[LabelCell, list[int]] = {}
    embedding_hours: dict[Cell, list[int]] = {}
    for event in events:
        started_at_us = event.started_at_ns // 1_000
        day_us = bucket_start("day", started_at_us)
        cell = Cell(
            event.organization,
            bucket_start("hour", started_at_us),
            event.project,
            event.key_id,
            event.model,
            event.data_class,
            event.region,
        )
        figures = hours.get(cell)
        if figures is None:
            figures = hours[cell] = [0] * len(METERS)
        found = count(event)
        for meter, quantity in found.items():
            figures[_PLACES[meter]] += quantity
        if event.operation == EMBEDDINGS:
            _add(embedding_hours, cell, [found.get(meter, 0) for meter in METERS])
        for name, value in {*event.labels}:
            where = (event.organization, name, day_us, value, event.model, event.project)
            _add(label_days, LabelCell(*where), [found.get(meter, 0) for meter in METERS])
    project_hours: dict[ProjectCell, list[int]] = {}
    for cell, figures in hours.items():
        _add(project_hours, _project_cell(cell), figures)
        _add(days, cell._replace(at_us=bucket_start("day", cell.at_us)), figures)
    months: dict[Cell, list[int]] = {}
    project_days: dict[ProjectCell, list[int]] = {}
    for cell, figures in days.items():
        _add(months, cell._replace(at_us=bucket_start("month", cell.at_us)), figures)
        _add(project_days, _project_cell(cell), figures)
    return Figures(hours, days, months, project_days, label_days, embedding_hours, project_hours)


def _project_cell(cell: Cell) -> ProjectCell:
    return ProjectCell(*cell[:3], cell.model, cell.data_class, cell.region)


def _add(sums: dict[Any, list[int]], key: Any, figures: Iterable[int]) -> None:
    there = sums.get(key)
    sums[key] = (
        [*figures]
        if there is None
        else [one + other for one, other in zip(there, figures, strict=True)]
    )
