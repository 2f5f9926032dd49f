"""What events add to the figures of stretches of time: pure, no clock, no I/O."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from penstock.contract.usage import METERS, Meter, UsageEvent, quantities
from penstock.metering.bucket_rules import bucket_start, eighth_start, quarter_start
from penstock.metering.model import Cell, Figures, LabelCell, ModelCell, ProjectCell

EMBEDDINGS = "embeddings"
"""The operation whose figures are kept by themselves, too."""
_From = TypeVar("_From", Cell, ProjectCell)
_To = TypeVar("_To", Cell, ProjectCell, ModelCell)
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
    quarters: dict[Cell, list[int]] = {}
    label_days: dict[LabelCell, list[int]] = {}
    embedding_hours: dict[Cell, list[int]] = {}
    for event in events:
        started_at_us = event.started_at_ns // 1_000
        day_us = bucket_start("day", started_at_us)
        cell = Cell(
            event.organization,
            quarter_start(started_at_us),
            event.project,
            event.key_id,
            event.model,
            event.data_class,
            event.region,
        )
        figures = quarters.get(cell)
        if figures is None:
            figures = quarters[cell] = [0] * len(METERS)
        found = count(event)
        for meter, quantity in found.items():
            figures[_PLACES[meter]] += quantity
        if event.operation == EMBEDDINGS:
            hour = cell._replace(at_us=bucket_start("hour", started_at_us))
            _add(embedding_hours, hour, [found.get(meter, 0) for meter in METERS])
        for name, value in {*event.labels}:
            where = (event.organization, name, day_us, value, event.model, event.project)
            _add(label_days, LabelCell(*where), [found.get(meter, 0) for meter in METERS])
    project_quarters = _fold(quarters, _drop_key)
    eighths = _fold(quarters, _to_eighth)
    project_eighths = _fold(eighths, _drop_key)
    days = _fold(eighths, _to_day)
    return Figures(
        quarters=quarters,
        days=days,
        months=_fold(days, _to_month),
        project_days=_fold(days, _drop_key),
        label_days=label_days,
        embedding_hours=embedding_hours,
        project_quarters=project_quarters,
        model_quarters=_fold(project_quarters, _drop_project),
        eighths=eighths,
        project_eighths=project_eighths,
        model_eighths=_fold(project_eighths, _drop_project),
    )


def _fold(
    figures: Mapping[_From, list[int]], place: Callable[[_From], _To]
) -> dict[_To, list[int]]:
    folded: dict[_To, list[int]] = {}
    for cell, sums in figures.items():
        _add(folded, place(cell), sums)
    return folded


def _drop_key(cell: Cell) -> ProjectCell:
    return ProjectCell(*cell[:3], cell.model, cell.data_class, cell.region)


def _drop_project(cell: ProjectCell) -> ModelCell:
    return ModelCell(*cell[:2], *cell[3:])


def _to_eighth(cell: Cell) -> Cell:
    return cell._replace(at_us=eighth_start(cell.at_us))


def _to_day(cell: Cell) -> Cell:
    return cell._replace(at_us=bucket_start("day", cell.at_us))


def _to_month(cell: Cell) -> Cell:
    return cell._replace(at_us=bucket_start("month", cell.at_us))


def _add(sums: dict[Any, list[int]], key: Any, figures: Iterable[int]) -> None:
    there = sums.get(key)
    sums[key] = (
        [*figures]
        if there is None
        else [one + other for one, other in zip(there, figures, strict=True)]
    )
