"""Every SQL statement that writes figures of stretches of time, each within a scope."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from penstock.contract.usage import METERS
from penstock.metering.model import Cell, Figures, LabelCell, ModelCell, ProjectCell
from penstock.metering.tables import (
    UsageDays,
    UsageEighths,
    UsageEmbeddingHours,
    UsageLabelDays,
    UsageModelEighths,
    UsageModelQuarters,
    UsageMonths,
    UsageProjectDays,
    UsageProjectEighths,
    UsageProjectQuarters,
    UsageQuarters,
)
from penstock.storage.base import Base
from penstock.storage.bulk import MAX_SUM, Bulk
from penstock.storage.scope import Scope
from penstock.storage.sessions import WriteSession


def _bulk(table: type[Base], members: Iterable[str]) -> Bulk:
    keys = (name.removesuffix("_us") for name in members)
    return Bulk(table, (*keys, *METERS), sums=METERS)


_QUARTERS = _bulk(UsageQuarters, Cell._fields)
_EMBEDDING_HOURS = _bulk(UsageEmbeddingHours, Cell._fields)
_DAYS = _bulk(UsageDays, Cell._fields)
_MONTHS = _bulk(UsageMonths, Cell._fields)
_PROJECT_DAYS = _bulk(UsageProjectDays, ProjectCell._fields)
_PROJECT_QUARTERS = _bulk(UsageProjectQuarters, ProjectCell._fields)
_MODEL_QUARTERS = _bulk(UsageModelQuarters, ModelCell._fields)
_EIGHTHS = _bulk(UsageEighths, Cell._fields)
_PROJECT_EIGHTHS = _bulk(UsageProjectEighths, ProjectCell._fields)
_MODEL_EIGHTHS = _bulk(UsageModelEighths, ModelCell._fields)
_LABEL_DAYS = _bulk(UsageLabelDays, LabelCell._fields)


async def add_figures(session: WriteSession, scope: Scope, figures: Figures) -> None:
    """Add figures to those that are there. Corrections may be negative.

    A sum that is larger than what a column holds stays at that: no usage is refused for it.
    """
    scope.require(cell.organization for cell in figures.quarters)
    scope.require(cell.organization for cell in figures.label_days)
    await session.add_many(_QUARTERS, _rows(figures.quarters))
    await session.add_many(_DAYS, _rows(figures.days))
    await session.add_many(_MONTHS, _rows(figures.months))
    await session.add_many(_PROJECT_DAYS, _rows(figures.project_days))
    await session.add_many(_PROJECT_QUARTERS, _rows(figures.project_quarters))
    await session.add_many(_MODEL_QUARTERS, _rows(figures.model_quarters))
    await session.add_many(_EIGHTHS, _rows(figures.eighths))
    await session.add_many(_PROJECT_EIGHTHS, _rows(figures.project_eighths))
    await session.add_many(_MODEL_EIGHTHS, _rows(figures.model_eighths))
    await session.add_many(_LABEL_DAYS, _rows(figures.label_days))
    await session.add_many(_EMBEDDING_HOURS, _rows(figures.embedding_hours))


def _rows(figures: Mapping[Any, Sequence[int]]) -> list[tuple[Any, ...]]:
    # In order of the key: so no writer waits for one that waits for it.
    return [
        (*cell, *(min(figure, MAX_SUM) for figure in figures[cell])) for cell in sorted(figures)
    ]
