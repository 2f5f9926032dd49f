"""Rules of limits, as options and tables have them."""

from typing import TYPE_CHECKING, Any

from penstock.cli.bodies import given
from penstock.cli.errors import BAD_OPTION, CommandError
from penstock.cli.records import NONE, Column, text_cell, text_of
from penstock.cli.times import format_duration, parse_duration_s
from penstock.contract.limits import Metric

if TYPE_CHECKING:
    from penstock.cli.control_client import Row

_SLOT = ("metric", "window_s", "alias", "model", "per", "label")
_FORM = "Write METRIC=LIMIT/WINDOW, e.g. requests=600/60s, and behind commas alias=, model=, per="
_MORE = ("alias", "model", "per", "label", "enforcement")


def limit_cell(row: "Row") -> str:
    """Return what a rule gives, for people.

    >>> limit_cell({"limit": 1000, "raised_limit": None})
    '1,000'
    """
    shown = f"{row['limit']:,}"
    if row.get("raised_limit") is None:
        return shown
    return f"{shown} ({row['raised_limit']:,} until {text_cell(row['raised_until'])[:16]})"


def scope_cell(row: "Row") -> str:
    """Return which requests a rule counts, for people.

    >>> scope_cell({"alias": "chat", "model": None, "per": "key"})
    'alias chat, each key'
    """
    parts = [f"{name} {row[name]}" for name in ("label", "alias", "model") if row.get(name)]
    parts += [f"each {row['per']}"] if row.get("per") else []
    return ", ".join(parts) or "all"


RULE_COLUMNS: tuple[Column, ...] = (
    ("Metric", text_of("metric")),
    ("Limit", limit_cell),
    ("Window", lambda row: format_duration(row["window_s"]) if row["window_s"] else NONE),
    ("Of", scope_cell),
    ("Enforced", text_of("enforcement")),
)


def words_of_rule(row: "Row") -> str:
    """Return what a rule gives, in a few words."""
    return " ".join(cell(row) for _, cell in RULE_COLUMNS[:4])


def build_slot(metric: str, window: str | None, **scope: str | None) -> dict[str, Any]:
    """Return the members that tell a rule from an owner's others.

    Args:
        metric: What is counted.
        window: As an option says it.
        scope: `alias`, `model`, `per` and `label`.

    Raises:
        CommandError: The window is no duration, or is that of what has none.
    """
    if metric == Metric.CONCURRENCY:
        if window is not None:
            raise CommandError(BAD_OPTION, "concurrency has no window.", "Leave out --window.")
        window_s = 0
    else:
        window_s = 60 if window is None else parse_duration_s("--window", window)
    return {"metric": metric, "window_s": window_s, **scope}


def split_rules(rules: "list[Row]", slot: dict[str, Any]) -> "tuple[Row | None, list[Row]]":
    """Return the rule of a slot, if there is one, and the others, all as bodies have them."""
    bodies = [{name: value for name, value in rule.items() if name != "id"} for rule in rules]
    own = [body for body in bodies if {name: body.get(name) for name in _SLOT} == slot]
    return (own[0] if own else None), [body for body in bodies if body not in own]


def parse_rule(text: str) -> dict[str, Any]:
    """Return the rule that a `--rule` says, as bodies have it.

    Raises:
        CommandError: It is none.

    >>> parse_rule("tokens=1000000/1d,alias=chat")
    {'metric': 'tokens', 'limit': 1000000, 'window_s': 86400, 'alias': 'chat'}
    """
    first, *more = text.split(",")
    metric, equals, figures = first.partition("=")
    limit, slash, window = figures.partition("/")
    pairs = dict(part.partition("=")[::2] for part in more)
    known = {str(one) for one in Metric}
    is_rule = equals and metric in known and limit.isascii() and limit.isdigit()
    if not is_rule or not pairs.keys() <= set(_MORE) or not all(pairs.values()):
        raise CommandError(BAD_OPTION, f"--rule {text} is no rule.", f"{_FORM}.")
    window_s = parse_duration_s("--rule", window) if slash else None
    return given(metric=metric, limit=int(limit), window_s=window_s, **pairs)
