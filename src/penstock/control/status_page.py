"""The page at `/`: what is running and what was used, for a person with a browser."""

import base64
import hashlib
import platform
import sqlite3
from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi.responses import HTMLResponse

import penstock
from penstock.control.html import Html, fill, join
from penstock.kit.clock import Clock
from penstock.kit.moments import format_time
from penstock.metering import service
from penstock.metering.model import UsageFilter, UsageRow, UsageTotal
from penstock.storage.database import Database
from penstock.storage.scope import Scope

LATEST_ROWS = 20
_DAY_US = 24 * 3_600 * 1_000_000

_PAGE = files(__package__).joinpath("status.html").read_text(encoding="utf-8")
# The policy names the hash of exactly what stands between the tags.
_STYLE = Html(files(__package__).joinpath("status.css").read_text(encoding="utf-8"))
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_HEADERS = {
    "content-security-policy": (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "referrer-policy": "no-referrer",
}

_TABLE = "<table><thead><tr>$head</tr></thead><tbody>$rows</tbody></table>"
_EMPTY = "<div class=empty>Nothing yet. Send a request to the gateway and look again.</div>"
_MODEL_HEAD = Html(
    "<th>Model</th><th class=number>Requests</th><th class=number>Input tokens</th>"
    "<th class=number>Output tokens</th><th>Share of output</th>"
)
_MODEL_ROW = (
    "<tr><td>$model</td><td class=number>$requests</td><td class=number>$input_tokens</td>"
    '<td class=number>$output_tokens</td><td><meter max="$all" value="$part"></meter></td></tr>'
)
_LATEST_HEAD = Html(
    "<th>Started</th><th>Organization / project</th><th>Key</th><th>Model</th><th>Outcome</th>"
    "<th class=number>Input</th><th class=number>Output</th><th class=number>First byte</th>"
    "<th class=number>Total</th><th>Request</th>"
)
_LATEST_ROW = (
    "<tr><td>$started</td><td>$organization / $project</td><td>$key</td><td>$model</td>"
    '<td class="$kind" title="$error">$outcome</td><td class=number>$input_tokens</td>'
    "<td class=number>$output_tokens</td><td class=number>$first_byte</td>"
    "<td class=number>$total</td><td><code>$request_id</code></td></tr>"
)


def create_page_router(
    database: Database, clock: Clock, authenticate: Callable[..., Scope]
) -> APIRouter:
    """Return the page.

    Args:
        database: Where usage is kept.
        clock: Says what the last 24 hours are.
        authenticate: Checks who asks, and says whose usage that may be.
    """
    router = APIRouter(include_in_schema=False)

    @router.get("/", response_class=HTMLResponse)
    async def show_status(scope: Annotated[Scope, Depends(authenticate)]) -> HTMLResponse:
        now_us = clock.wall_ns() // 1_000
        async with database.read(scope) as session:
            totals = await service.total_usage(
                session, scope, UsageFilter(since_us=now_us - _DAY_US), "model"
            )
            latest = await service.list_latest_usage(session, scope, LATEST_ROWS)
            conflicts = await service.count_conflicts(session, scope)
        return HTMLResponse(render_status(now_us, totals, latest, conflicts), headers=_HEADERS)

    return router


def render_status(
    now_us: int, totals: Sequence[UsageTotal], latest: Sequence[UsageRow], conflicts: int
) -> Html:
    """Return the page as HTML; everything in it that came from outside is escaped.

    Args:
        now_us: Microseconds since the Unix epoch.
        totals: Usage by model.
        latest: Requests, newest first.
        conflicts: Events in quarantine.
    """
    return fill(
        _PAGE,
        style=_STYLE,
        now=f"{format_time(now_us)[:19]}Z",
        requests=f"{sum(total.requests for total in totals):,}",
        input_tokens=f"{sum(total.input_tokens for total in totals):,}",
        output_tokens=f"{sum(total.output_tokens for total in totals):,}",
        conflicts=f"{conflicts:,}",
        models=_table(_MODEL_HEAD, _model_rows(totals)),
        latest=_table(_LATEST_HEAD, [_latest_row(row) for row in latest]),
        version=penstock.__version__,
        python=platform.python_version(),
        sqlite=sqlite3.sqlite_version,
    )


def _table(head: Html, rows: list[Html]) -> Html:
    return fill(_TABLE, head=head, rows=join(rows)) if rows else Html(_EMPTY)


def _model_rows(totals: Sequence[UsageTotal]) -> list[Html]:
    all_output_tokens = sum(total.output_tokens for total in totals)
    return [
        fill(
            _MODEL_ROW,
            model=total.group,
            requests=f"{total.requests:,}",
            input_tokens=f"{total.input_tokens:,}",
            output_tokens=f"{total.output_tokens:,}",
            all=max(all_output_tokens, 1),
            part=total.output_tokens,
        )
        for total in sorted(totals, key=lambda total: total.output_tokens, reverse=True)
    ]


def _latest_row(row: UsageRow) -> Html:
    return fill(
        _LATEST_ROW,
        started=format_time(row.started_at_us)[:19].replace("T", " "),
        organization=row.organization_name or row.organization,
        project=row.project_name or row.project,
        key=row.key_name or row.key_id,
        model=row.model,
        kind="ok" if row.outcome == "ok" else "failed",
        error=row.error_code or "",
        outcome=row.outcome,
        input_tokens=f"{row.input_tokens:,}",
        output_tokens=f"{row.output_tokens:,}",
        first_byte=_duration(row.started_at_us, row.first_byte_at_us),
        total=_duration(row.started_at_us, row.finished_at_us),
        request_id=row.request_id,
    )


def _duration(start_us: int, end_us: int | None) -> str:
    return "–" if end_us is None else f"{(end_us - start_us) // 1_000:,} ms"  # noqa: RUF001
