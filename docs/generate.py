"""Writes docs/reference anew from the code, so that it cannot say anything else than the code.

usage: python docs/generate.py
"""

import ast
import importlib
import json
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby, pairwise
from pathlib import Path
from types import ModuleType
from typing import NamedTuple, TypeVar

from penstock.cli.main import app
from penstock.cli.reference import render_reference
from penstock.contract import snapshot
from penstock.contract.cloud_event import SCHEMA_NAME, event_schema
from penstock.contract.metrics import Metric
from penstock.contract.node import WorkerSettings
from penstock.engines.isolation import ALWAYS_OURS, IDENTIFYING, STEERING
from penstock.engines.load import REPORT, REPORT_FORMAT
from penstock.engines.model import Engine, Load, Priority
from penstock.engines.operating import loads_adapters
from penstock.engines.registry import ENGINES
from penstock.gateway import limits as gateway_limits
from penstock.kit.errors import ErrorCode
from penstock.kit.logs.event import Event
from penstock.kit.logs.lines import LIBRARY
from penstock.node.telemetry import points, spans

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src"
REFERENCE = ROOT / "docs" / "reference"

_ERRORS_HEAD = """\
# Error codes

Every failure has one code, `err:<plane>:<category>:<specific>`, that never changes its meaning.

An error answer of the gateway has the shape that OpenAI's SDKs expect. `error.type` and
`error.code` hold the conventional words that callers switch on; ours stand beside them:

- `error.penstock_code` and the header `x-penstock-error-code` hold the code of this page;
- the header `x-penstock-error-source` says who failed: `gateway` or `upstream`;
- `x-request-id` names the request in the usage records and in the logs.

Once a stream has begun, the same error object arrives as its last `data:` event, without a
`[DONE]` behind it, and the connection ends abnormally.
"""

_METRICS_HEAD = """\
# Metrics

What a node's `/metrics` shows, and the control plane's, in Prometheus' text form or as OpenMetrics.
Labels hold only names that the configuration knows, so a caller cannot make new series. Of many
organizations, models and upstreams the large ones are shown, and the rest together as `other`
(`organizations_shown` and others in [limits](limits.md)). Names that begin with `gen_ai` are those
of OpenTelemetry's conventions. Times are in seconds, sizes in bytes.
"""

_METRICS_BY_OTLP = """
## By OTLP

[Pushed](../how-to/send-metrics.md) metrics have the names and labels above, and units as their
names say, but for those that OpenTelemetry's conventions name:

"""

_LOG_EVENTS_HEAD = """\
# Log events

What agents (`node.`), workers (`gateway.`) and control planes log. Names are stable: look for them
and not for words. [Read logs](../how-to/read-logs.md) says what a line looks like.
"""

_SPANS_HEAD = """\
# Spans

What a trace has of each request, where [traces are sent](../how-to/send-traces.md). The name of an
attempt is its operation and model, such as `chat llama-70b`. Children are within their parents. No
attribute holds anything of a prompt or an answer; texts are cut at 256 characters.

"""

_ENGINES_HEAD = """\
# Engines

What Penstock knows of each kind of model server. The name is the upstream's `provider`; one that
you leave out is `openai_compatible`. Facts are those of default settings of the servers.

What callers may not tell a server, whichever it is, is taken out of bodies: {steering}.
A key with the scope `inference:steer`, which only the platform's operator gives, may say all of
that but {ours}.

Any other key may say `priority`, a whole number from -100 to 100: the larger, the sooner, and 0 is
as if nothing was said. Above 0 counts only with the scope `inference:priority`, which the operator
gives as well. Servers of upstreams with `takes_priority` are told in their own words, others not.
Requests to infer by the Open Inference Protocol have Triton's own parameter `priority` (1 first, 0
for the model's default level), which passes with that scope and is taken out without it.

{identifying} are sent as pseudonyms, which differ between organizations; so
is `metadata.user_id` of Anthropic's Messages. Where a server keeps caches of prompts apart by
`cache_salt`, each organization has its own; SGLang does so for Anthropic's Messages only in
versions that know the member there.

Requests go to servers that speak their protocol, as it is below: Messages and Responses are not
translated. Only chats and completions are, for servers of the Open Inference Protocol.
"""

_LIMITS_HEAD = """\
# Limits

Every bound that a request or a connection meets. The first table is the same for all; the others
are defaults that the configuration can change.
"""


class Documented(NamedTuple):
    """A constant or a field, with the docstring that follows it."""

    name: str
    value: object
    meaning: str


def _modules(name: str) -> Iterator[ModuleType]:
    """Import every module of the package that has this file name."""
    for path in sorted((SOURCE / "penstock").rglob(f"{name}.py")):
        dotted = ".".join(path.relative_to(SOURCE).with_suffix("").parts)
        yield importlib.import_module(dotted)


_Declared = TypeVar("_Declared", ErrorCode, Metric, Event)


def _declared(name: str, kind: type[_Declared]) -> list[_Declared]:
    """Return the values of a type that modules of a file name hold, each once, in their order."""
    found = {
        id(value): value
        for module in _modules(name)
        for value in vars(module).values()
        if isinstance(value, kind)
    }
    return list(found.values())


def error_codes() -> list[ErrorCode]:
    """Return every error code that an `errors.py` of the package declares."""
    return _declared("errors", ErrorCode)


def metrics() -> list[Metric]:
    """Return every metric that a `metrics.py` of the package declares."""
    return _declared("metrics", Metric)


def log_events() -> list[Event]:
    """Return every event that a `log_events.py` of the package declares."""
    return [*_declared("log_events", Event), LIBRARY]


def _attribute_docs(body: list[ast.stmt]) -> dict[str, str]:
    """Return the docstrings behind the assignments of a module or class, by name."""
    docs = {}
    for statement, following in pairwise(body):
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                pass
            case _:
                continue
        match following:
            case ast.Expr(value=ast.Constant(value=str(doc))):
                docs[name] = " ".join(doc.split())
    return docs


def documented_constants(module: ModuleType) -> list[Documented]:
    """Return a module's constants that have a docstring."""
    source = Path(str(module.__file__)).read_text(encoding="utf-8")
    docs = _attribute_docs(ast.parse(source).body)
    return [Documented(name, getattr(module, name), doc) for name, doc in docs.items()]


def documented_defaults(struct: type) -> list[Documented]:
    """Return a struct's numeric fields that have a default, with their docstrings or ""."""
    module = importlib.import_module(struct.__module__)
    source = Path(str(module.__file__)).read_text(encoding="utf-8")
    (body,) = (
        node.body
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef) and node.name == struct.__name__
    )
    docs = _attribute_docs(body)
    rows = []
    for statement in body:
        match statement:
            case ast.AnnAssign(
                target=ast.Name(id=name), annotation=ast.Name(id="int" | "float"), value=ast.expr()
            ) if name not in {"port", "format"}:
                value = ast.literal_eval(ast.Expression(_folded(statement.value)))
                rows.append(Documented(name, value, docs.get(name, "")))
    return rows


def _folded(expression: ast.expr | None) -> ast.expr:
    """Return a constant for a product of constants, e.g. 16 * 1024 * 1024."""
    match expression:
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            match _folded(left), _folded(right):
                case ast.Constant(value=int(a)), ast.Constant(value=int(b)):
                    return ast.Constant(a * b)
        case ast.Constant():
            return expression
    message = f"a default that the reference cannot show: {ast.dump(expression or ast.Pass())}"
    raise ValueError(message)


def quantity(name: str, value: object) -> str:
    """Return a figure with the unit that its name ends in."""
    if not isinstance(value, int | float):
        return f"`{value}`"
    unit = name.lower().rpartition("_")[2]
    if unit == "bytes":
        for power, prefix in ((3, "G"), (2, "M"), (1, "K")):
            if value % 1024**power == 0:
                return f"{value // 1024**power} {prefix}iB"
        return f"{value} bytes"
    figure = f"{value:,}" if isinstance(value, int) else f"{value:g}"
    return f"{figure} {unit}" if unit in {"s", "ms"} else figure


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    cells = ([cell.replace("|", "\\|") for cell in line] for line in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


def errors_page() -> str:
    """Return the page of error codes, grouped by plane."""
    parts = [_ERRORS_HEAD]
    ordered = sorted(error_codes(), key=lambda error: error.code.split(":")[1])
    for plane, group in groupby(ordered, key=lambda error: error.code.split(":")[1]):
        parts.append(f"\n## {plane}\n")
        parts.extend(_error_entry(error) for error in group)
    return "".join(parts)


def _error_entry(error: ErrorCode) -> str:
    lines = [f"\n### `{error.code}`\n\n{error.public}\n\n"]
    if not error.code.startswith("err:cli:"):  # nothing on the command line is answered over HTTP
        retry = "may succeed later unchanged" if error.retryable else "will not succeed unchanged"
        lines.append(
            f"- Status {error.status}, source {error.source}, `{error.conventional_type}` / "
            f"`{error.conventional_code}`; {retry}.\n"
        )
    lines.append(f"- Cause: {error.cause}\n")
    if error.caller_action == error.operator_action:
        lines.append(f"- What to do: {error.caller_action}\n")
    else:
        lines.append(f"- Caller: {error.caller_action}\n- Operator: {error.operator_action}\n")
    return "".join(lines)


def metrics_page() -> str:
    """Return the page of metrics."""
    rows = [
        (
            f"`{metric.name}`",
            metric.kind,
            ", ".join(f"`{label}`" for label in metric.labels) or "none",
            metric.help,
        )
        for metric in metrics()
    ]
    page = _METRICS_HEAD + "\n" + _table(("Name", "Kind", "Labels", "Meaning"), rows)
    buckets = [
        (
            f"`{metric.name}`",
            " ".join(f"{bound:.6f}".rstrip("0").rstrip(".") for bound in metric.buckets),
        )
        for metric in metrics()
        if metric.buckets
    ]
    named = [(f"`{name}`", f"`{said}`", unit) for name, (said, unit) in points.STANDARD.items()]
    named += [(f"`{name}`", f"`{said}`", "") for name, said in points.STANDARD_LABELS.items()]
    return (
        page
        + "\n## Buckets\n\n"
        + _table(("Histogram", "Upper bounds"), buckets)
        + _METRICS_BY_OTLP
        + _table(("Name or label", "By OTLP", "Unit"), named)
    )


def log_events_page() -> str:
    """Return the page of log events."""
    ordered = sorted(log_events(), key=lambda event: event.name)
    rows = [(f"`{event.name}`", event.level.name.lower(), event.meaning) for event in ordered]
    return _LOG_EVENTS_HEAD + "\n" + _table(("Event", "Level", "Meaning"), rows)


def limits_page() -> str:
    """Return the page of limits."""
    head = ("Name", "Value", "Meaning")
    sections = [
        (
            "Of a worker",
            documented_constants(gateway_limits),
        ),
        ("Of an upstream: `timeouts`", documented_defaults(snapshot.Timeouts)),
        ("Of an upstream", documented_defaults(snapshot.Upstream)),
        ("Of a deployment", documented_defaults(snapshot.Deployment)),
        ("Of a worker's start", documented_defaults(WorkerSettings)),
    ]
    return _LIMITS_HEAD + "".join(
        f"\n## {title}\n\n"
        + _table(
            head, [(f"`{row.name}`", quantity(row.name, row.value), row.meaning) for row in rows]
        )
        for title, rows in sections
        if rows
    )


def engines_page() -> str:
    """Return docs/reference/engines.md."""
    head = _ENGINES_HEAD.format(
        steering=", ".join(f"`{name}`" for name in sorted(STEERING)),
        ours=" and ".join(f"`{name}`" for name in sorted(ALWAYS_OURS)),
        identifying=", ".join(f"`{name}`" for name in IDENTIFYING),
    )
    return head + "".join(map(_engine_entry, ENGINES.values()))


def _engine_entry(engine: Engine) -> str:
    facts = {
        "Speaks": _spoken(engine),
        "Alive": _code(engine.health_path),
        "Ready for a model": _code(engine.ready_path or engine.health_path),
        "Models": _code(engine.models_path),
        "Operations elsewhere": ", ".join(
            f"{_code(ours)} at {_code(path)}" for ours, path in engine.paths.items()
        ),
        "Most tokens of a request, there": _code(engine.context_member),
        **(_load_facts(engine.load) if engine.load else {}),
        "Load, in answers": (
            f"`{REPORT}`, asked for by `{REPORT_FORMAT}`" if engine.reports_load else ""
        ),
        "Never read": ", ".join(map(_code, engine.never_polled)),
        "Key, in a field of its own": _code(engine.key_header or None),
        "Always in the header": ", ".join(
            _code(f"{name}: {value}") for name, value in engine.fixed_headers.items()
        ),
        "Errors": engine.errors,
        "No room": ", ".join(map(str, sorted(engine.overloaded_statuses))),
        "Priority": _priority_fact(engine.priority) if engine.priority else "",
        "Caches apart by `cache_salt`": "yes" if engine.takes_cache_salt else "",
        "Its models are owned by": _code(engine.owned_by or None),
        "Session": _code(engine.session_header),
        "Fair among organizations by": _code(engine.fairness_header),
        "Usage in every chunk": "yes" if engine.usage_in_every_chunk else "",
        "Most choices": str(engine.most_choices or ""),
        "An adapter's name in requests": _adapter_fact(engine),
        "Told by operators": ", ".join(_code(each.name) for each in engine.operations),
        "Ends a request by": engine.cancels,
    }
    rows = [(name, fact) for name, fact in facts.items() if fact]
    return f"\n## `{engine.name}`\n\n{engine.title}.\n\n" + _table(("", ""), rows)


def _spoken(engine: Engine) -> str:
    protocols = {
        "OpenAI's chats and the like": engine.speaks_openai,
        "OpenAI's Responses": engine.speaks_responses,
        "Anthropic's Messages": engine.speaks_messages,
        "the Open Inference Protocol": engine.speaks_oip,
    }
    return ", ".join(name for name, is_spoken in protocols.items() if is_spoken)


def _load_facts(load: Load) -> dict[str, str]:
    return {
        "Load": _code(load.path) + (f" on port {load.port}" if load.port else ""),
        "Requests running": _code(load.running),
        "Requests waiting": _code(load.waiting),
        "Requests waiting in front of backends": _code(load.queued or None),
        "KV cache in use": _code(load.cache_use),
    }


def _adapter_fact(engine: Engine) -> str:
    if not loads_adapters(engine):
        return ""
    return _code(engine.adapter_form.format(model="MODEL", adapter="ADAPTER"))


def _priority_fact(priority: Priority) -> str:
    which = "larger" if priority.is_higher_earlier else "smaller"
    return f"{_code('.'.join(priority.path))}, the {which} first"


def _code(text: str | None) -> str:
    return f"`{text}`" if text else ""


def cli_page() -> str:
    """Return the page of all commands."""
    return render_reference(app)


def spans_page() -> str:
    """Return the page of spans and their attributes."""
    own = [(f"`{name}`", meaning) for name, meaning in spans.ATTRIBUTES.items()]
    standard = [(f"`{name}`", meaning) for name, meaning in spans.STANDARD_ATTRIBUTES.items()]
    parts = [(f"`{name}`", *facts) for name, facts in spans.SPANS.items()]
    return (
        _SPANS_HEAD
        + _table(("Span", "Below", "From", "To"), parts)
        + "\n## OpenTelemetry's attributes\n\n"
        + _table(("Name", "Where, and what"), standard)
        + "\n## Our attributes\n\n"
        + _table(("Name", "What it is"), own)
    )


def event_schema_file() -> str:
    """Return the schema of usage events, as control planes serve it."""
    return json.dumps(event_schema(), indent=2) + "\n"


PAGES: dict[str, Callable[[], str]] = {
    SCHEMA_NAME: event_schema_file,
    "cli.md": cli_page,
    "engines.md": engines_page,
    "errors.md": errors_page,
    "limits.md": limits_page,
    "log-events.md": log_events_page,
    "metrics.md": metrics_page,
    "spans.md": spans_page,
}


def main() -> None:
    """Write every page."""
    REFERENCE.mkdir(parents=True, exist_ok=True)
    for name, page in PAGES.items():
        (REFERENCE / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
