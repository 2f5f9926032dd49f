"""`penstock top`: what goes on just now, by tenant, model and engine."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.cli.errors import EXIT_FAILURE, NOT_RUNNING, CommandError
from penstock.cli.instance import DataOption, data_folder, find_facts, is_running
from penstock.cli.options import option
from penstock.cli.output import JsonOption, console, examples, print_json
from penstock.cli.times import format_time

if TYPE_CHECKING:
    from penstock.cli.top_nodes import Nodes
    from penstock.cli.top_rules import Report

EXAMPLES = examples(
    "penstock top",
    "penstock top --metrics http://10.0.0.5:9464 --metrics http://10.0.0.6:9464",
    "penstock top --sort first_p99 --rows 20",
    "penstock top --once --json",
)
_MOST_ROWS = 100


class Sort(StrEnum):
    """What decides the order of rows; the largest are first."""

    REQUESTS = "requests"
    ERRORS = "errors"
    REFUSED = "refused"
    INPUT_TOKENS = "input_tokens"
    OUTPUT_TOKENS = "output_tokens"
    FIRST_P50 = "first_p50"
    FIRST_P99 = "first_p99"
    WHOLE_P50 = "whole_p50"
    WHOLE_P99 = "whole_p99"
    IN_FLIGHT = "in_flight"
    NAME = "name"


def top(
    *,
    metrics: Annotated[
        list[str] | None,
        option("--metrics", "Address of an agent's metrics; repeat it. Else the dev's.", "URL"),
    ] = None,
    interval: Annotated[
        float,
        typer.Option("--interval", help="Seconds between two looks.", min=0.2, max=60),
    ] = 2.0,
    sort: Annotated[Sort, typer.Option("--sort", help="What is first.")] = Sort.REQUESTS,
    rows: Annotated[
        int, typer.Option("--rows", help="The most rows of a table.", min=1, max=_MOST_ROWS)
    ] = 10,
    once: Annotated[
        bool, typer.Option("--once", help="Look for one interval, print it, and end.")
    ] = False,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what goes on just now: requests, times, tokens, refusals, by tenant, model and engine.

    Rates and quantiles are those of the last interval, of all agents together: `first` is the time
    to the first token or byte, `whole` that to the end, each half and 99 of 100 of them. An agent
    that does not answer is left out and named. Control-C ends it.
    """
    from penstock.cli.top_nodes import Nodes, make_client  # noqa: PLC0415  # start-up time
    from penstock.cli.top_rules import make_report  # noqa: PLC0415  # as above

    urls = metrics or [_find_url(data)]
    with make_client(urls) as client, _screen(is_live=not once and not as_json) as show:
        nodes = Nodes(urls, client, time.monotonic)
        try:
            nodes.look()
            while True:
                time.sleep(interval)
                values = nodes.look()
                report = make_report(values or {}, sort.value, rows)
                if as_json:
                    print_json(_document(report, nodes))
                    sys.stdout.flush()
                else:
                    show(report, nodes)
                if once:
                    break
        except KeyboardInterrupt:
            return  # the way to end it, so no failure
        finally:
            nodes.close()
    if values is None:
        raise typer.Exit(EXIT_FAILURE)


def _find_url(data: Path | None) -> str:
    folder = data_folder(data)
    facts = find_facts(folder)
    if facts is None or not is_running(folder):
        detail = f"No dev instance runs from {folder}."
        remedy = "Start `penstock dev`, or say with --metrics where an agent has its metrics."
        raise CommandError(NOT_RUNNING, detail, remedy)
    return facts.metrics_url


Show = Callable[["Report", "Nodes"], None]


def _screen(*, is_live: bool) -> AbstractContextManager[Show]:
    """Return what shows reports: in place on a terminal, one below the other elsewhere."""
    return _live() if is_live and console().is_terminal else _plain()


@contextmanager
def _plain() -> Iterator[Show]:
    def show(report: "Report", nodes: "Nodes") -> None:
        sys.stdout.write("\n".join(_lines(report, nodes, console().width)) + "\n\n")
        sys.stdout.flush()

    yield show


@contextmanager
def _live() -> Iterator[Show]:
    from rich.live import Live  # noqa: PLC0415  # start-up time
    from rich.text import Text  # noqa: PLC0415  # as above

    out = console()
    with Live(console=out, screen=True, auto_refresh=False) as live:

        def show(report: "Report", nodes: "Nodes") -> None:
            # What does not fit below is cut: the first rows of each table are the most important.
            lines = _lines(report, nodes, out.width)[: out.height]
            text = Text("\n".join(lines), no_wrap=True, overflow="crop")
            live.update(text, refresh=True)

        yield show


def _lines(report: "Report", nodes: "Nodes", width: int) -> list[str]:
    from penstock.cli.top_view import render  # noqa: PLC0415  # start-up time

    return render(report, _silent(nodes), width)


def _silent(nodes: "Nodes") -> Iterable[str]:
    for node in nodes.nodes:
        if node.fault is not None:
            since = "never" if node.silent_s is None else f"{node.silent_s:.0f} s ago"
            yield f"{node.url} does not answer, last {since}: {node.fault}"


def _document(report: "Report", nodes: "Nodes") -> dict[str, Any]:
    return {
        "at": format_time(datetime.now(UTC)),
        "nodes": [
            {"url": node.url, "fault": node.fault, "silent_s": node.silent_s}
            for node in nodes.nodes
        ],
        **asdict(report),
        "reasons": [{"code": code, "rate": rate} for code, rate in report.reasons],
    }
