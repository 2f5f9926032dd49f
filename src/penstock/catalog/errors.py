"""What can be wrong with a configuration: each fault with its place and its remedy."""

import difflib
import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import partial

from penstock.kit.errors import ErrorCode, PenstockError, Source, declare_refusal

PLATFORM_FILE_INVALID = ErrorCode(
    code="err:node:configuration:invalid",
    status=500,
    source=Source.INTERNAL,
    retryable=False,
    public="The configuration is not valid.",
    conventional_type="server_error",
    conventional_code="configuration_invalid",
    cause=(
        "penstock.yaml cannot be read, is no valid YAML, or has an unknown field, a wrong value, "
        "a dangling reference, a duplicate name or a secret that cannot be used."
    ),
    caller_action="None: a running node serves on from the last configuration that was valid.",
    operator_action="Correct the lines that the message names; a running node reads them again.",
)


_refusal = partial(declare_refusal, "catalog")


CATALOG_INVALID = _refusal(
    "invalid",
    400,
    "invalid_catalog",
    public="An upstream, deployment, route or alias cannot be like this.",
    cause="A member has a value that it cannot have, e.g. an address that is none.",
    caller_action="Correct the member that the message names.",
)

CATALOG_IN_USE = _refusal(
    "in_use",
    409,
    "in_use",
    public="Something else uses this object.",
    cause="What others name cannot be deleted, nor changed so that it does not fit them any more.",
    caller_action="Change or delete what the message names first.",
)

FALLBACK_CYCLE = _refusal(
    "fallback_cycle",
    409,
    "fallback_cycle",
    public="The fallbacks of these routes would go round in a circle.",
    cause="A route's fallback leads, over other fallbacks, back to the route itself.",
    caller_action="Take one of the routes that the message names out of the circle.",
)

GRANT_EXISTS = _refusal(
    "grant_exists",
    409,
    "grant_exists",
    public="They may use this alias already.",
    cause="An organization has one grant for an alias, and each of its projects has one.",
    caller_action="None; the grant that is there does the same.",
)

DOCUMENT_INVALID = _refusal(
    "document_invalid",
    400,
    "invalid_document",
    public="The document cannot be applied, and nothing of it was.",
    cause=(
        "It has an unknown field, a wrong value, a reference that leads nowhere, a name twice, or "
        "something that stands against it in the database."
    ),
    caller_action="Correct what `errors` names; each has the path in the document and a remedy.",
)

EXPORT_TOO_LARGE = _refusal(
    "export_too_large",
    409,
    "export_too_large",
    public="There is too much to export at once.",
    cause="The database has over 100,000 organizations, keys and other objects.",
    caller_action="Export one set of files at a time, with the parameter `set`.",
)

ENGINE_OPERATION_INVALID = _refusal(
    "operation_invalid",
    400,
    "invalid_operation",
    public="The engines of this upstream cannot be told to do this.",
    cause="Its provider has no such operation, or the operation takes other arguments.",
    caller_action="Use an operation and arguments that `penstock engines operations` lists.",
)

REGISTRATION_INVALID = _refusal(
    "registration_invalid",
    400,
    "invalid_registration",
    public="An engine cannot register like this.",
    cause=(
        "A member has a value that it cannot have, or the address is in none of the networks that "
        "the upstream's `registered://` source names."
    ),
    caller_action="Correct what the message names.",
)

REGISTRATION_REFUSED = _refusal(
    "registration_refused",
    409,
    "registration_refused",
    public="Engines do not register for this upstream.",
    cause="The upstream lists its endpoints, or has them found elsewhere.",
    caller_action="Ask the operator to set `discover` of the upstream to `registered://...`.",
)

REGISTRATIONS_FULL = _refusal(
    "registrations_full",
    409,
    "registrations_full",
    public="So many engines are registered for this upstream that no more can be.",
    cause="An upstream has at most 1,024 registered engines whose leases have not lapsed.",
    caller_action="Withdraw others, or register for another upstream.",
)

_SHOWN_NAMES = 5


@dataclass(frozen=True, slots=True, order=True)
class Mark:
    """A place in a text, both figures from 1."""

    line: int = 1
    column: int = 1


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault of a configuration. It never holds the text of a secret."""

    source: str
    """The file, as the user named it."""
    mark: Mark
    where: str
    """The field, e.g. `routes[0].upstream`."""
    problem: str
    """What is wrong and, behind a semicolon, the remedy."""
    path: tuple[str | int, ...] = ()
    """The field, step by step."""

    def __str__(self) -> str:
        """One line, in the form that editors and terminals make clickable."""
        place = f"{self.source}:{self.mark.line}:{self.mark.column}"
        return f"{place}: {self.where}: {self.problem}"


class PlatformFileError(PenstockError):
    """A configuration is not valid: all its faults at once, none of them applied in part.

    Args:
        findings: One or more faults, in any order; kept in the order of the files.
        error: What it is called where it is found.
    """

    def __init__(
        self, findings: Iterable[Finding], error: ErrorCode = PLATFORM_FILE_INVALID
    ) -> None:
        """See the class."""
        order = sorted(findings, key=lambda finding: (finding.source, finding.mark))
        self.findings = tuple(order)
        super().__init__(error, "\n".join(map(str, self.findings)))


def quoted(name: str) -> str:
    r"""Return a name in double quotes, on one line whatever it holds, and not endless.

    >>> quoted("a\nb")
    '"a\\nb"'
    """
    shown = name if len(name) <= 64 else name[:61] + "..."  # noqa: PLR2004  # a line's worth
    return json.dumps(shown)


def suggest(wrong: str, known: Collection[str], *, otherwise: str) -> str:
    """Return the remedy for a name that is not known: the likeliest one, or what there is.

    >>> suggest("emulatr", ["emulator", "vllm"], otherwise="add it")
    'did you mean "emulator"?'
    >>> suggest("zzz", ["emulator", "vllm"], otherwise="add it")
    'use one of "emulator", "vllm", or add it'
    >>> suggest("zzz", [], otherwise="add it")
    'add it'
    """
    near = difflib.get_close_matches(wrong[:128], known, n=1, cutoff=0.6)
    if near:
        return f"did you mean {quoted(near[0])}?"
    if not known:
        return otherwise
    if len(known) > _SHOWN_NAMES:
        return f"use one of the {len(known)} that there are, or {otherwise}"
    return f"use one of {', '.join(map(quoted, known))}, or {otherwise}"
