"""What can go wrong on the command line: what it is, where, and what to do about it."""

from collections.abc import Mapping, Sequence
from typing import Any

from penstock.kit.errors import ErrorCode, PenstockError, Source

EXIT_FAILURE = 1
EXIT_USAGE = 2


def _declare(code: str, public: str, cause: str, action: str, *, is_usage: bool) -> ErrorCode:
    # Nothing on the command line is answered over HTTP; the status only says whose move it is.
    return ErrorCode(
        code=code,
        status=400 if is_usage else 500,
        source=Source.DOWNSTREAM if is_usage else Source.INTERNAL,
        retryable=False,
        public=public,
        conventional_type="invalid_request_error" if is_usage else "server_error",
        conventional_code=code.rpartition(":")[2],
        cause=cause,
        caller_action=action,
        operator_action=action,
    )


BAD_OPTION = _declare(
    "err:cli:usage:bad_option",
    "The options do not fit together.",
    "An option has a value that cannot be used, or two options exclude each other.",
    "Run the command with --help and correct the option that the message names.",
    is_usage=True,
)
ENGINE_SILENT = _declare(
    "err:cli:engines:silent",
    "The engine does not answer.",
    "Nothing answers HTTP at the URL, or not from this machine.",
    "Correct the URL, or run the command where the engine can be reached.",
    is_usage=False,
)
PORT_BUSY = _declare(
    "err:cli:start:port_busy",
    "A port is already in use.",
    "Another program, or another Penstock, listens on a port that the command needs.",
    "Stop that program or choose another port with the option that the message names.",
    is_usage=False,
)
DATA_IN_USE = _declare(
    "err:cli:start:data_in_use",
    "The data folder is in use.",
    "Another `penstock dev` runs on the same data folder.",
    "Use the one that runs, stop it, or give this one its own folder with --data.",
    is_usage=False,
)
DATA_UNUSABLE = _declare(
    "err:cli:start:data_unusable",
    "The data folder cannot be used.",
    "The folder or a file in it cannot be created, read or written.",
    "Correct its owner and permissions, free some space, or choose another folder with --data.",
    is_usage=False,
)
BAD_CONFIG = _declare(
    "err:cli:config:invalid",
    "The configuration is not valid.",
    "penstock.yaml has an unknown field, a dangling reference, a duplicate name or no valid YAML.",
    "Correct the lines that the message names, then run `penstock config check FILE`.",
    is_usage=False,
)
ENGINE_UNREACHABLE = _declare(
    "err:cli:start:engine_unreachable",
    "The engine does not say what it serves.",
    "`GET /v1/models` of an --engine failed, or listed nothing.",
    "Start the engine, correct its URL, or name its models with --model.",
    is_usage=False,
)
CHILD_FAILED = _declare(
    "err:cli:start:child_failed",
    "A process could not start.",
    "A part of Penstock ended, or did not become ready in time, while starting.",
    "Read the end of its log, which the message shows, and run `penstock doctor`.",
    is_usage=False,
)
EMULATOR_FAILED = _declare(
    "err:cli:start:emulator_failed",
    "The emulator could not start.",
    "Its port is taken, its address is not one of this machine, or its log cannot be written.",
    "Choose another --port (any free one when 0), --host or --log.",
    is_usage=False,
)
NOT_RUNNING = _declare(
    "err:cli:connect:not_running",
    "No Penstock answers.",
    "Nothing runs on the data folder, or nothing answers at the control plane's URL.",
    "Start it with `penstock dev`, or say where it is with --data, PENSTOCK_DATA or PENSTOCK_URL.",
    is_usage=False,
)
NOT_ALLOWED = _declare(
    "err:cli:connect:not_allowed",
    "The control plane refused the token.",
    "The token is missing, or is neither this control plane's admin token nor a working API key "
    "with the scope `admin`.",
    "Set PENSTOCK_TOKEN to its admin token or to an API key with the scope `admin`, or unset it "
    "and use the data folder's.",
    is_usage=False,
)
CONTROL_FAILED = _declare(
    "err:cli:connect:control_failed",
    "The control plane answered with an error.",
    "The control plane refused the question or failed over it.",
    "Correct what the message names; for a server error see control's log.",
    is_usage=False,
)
NOT_FOUND = _declare(
    "err:cli:lookup:not_found",
    "There is nothing of this name or id.",
    "It was never created, was archived or revoked, has another name, or is not yours to see.",
    "Look at the list of what there is, e.g. `penstock projects list`; names are exact.",
    is_usage=False,
)
AMBIGUOUS = _declare(
    "err:cli:lookup:ambiguous",
    "Several have this name.",
    "Names are unique within an organization or project only, and none was named.",
    "Name the organization with --org or the project with --project, or give the id.",
    is_usage=True,
)
NOT_CONFIRMED = _declare(
    "err:cli:usage:not_confirmed",
    "This cannot be undone and was not confirmed.",
    "The command asks before it does this, and there is no terminal to ask on.",
    "Run it again with --yes if it is meant.",
    is_usage=True,
)


class CommandError(PenstockError):
    """An expected failure of a command: printed without a traceback.

    Args:
        error: The declared code.
        detail: What is wrong and where; no secrets.
        remedy: What to do about it here; the code's general advice when "".
    """

    def __init__(self, error: ErrorCode, detail: str = "", remedy: str = "") -> None:
        """See the class."""
        super().__init__(error, detail)
        self.remedy = remedy or error.caller_action

    @property
    def code(self) -> str:
        """The code that programs switch on."""
        return self.error.code

    @property
    def exit_code(self) -> int:
        """2 for wrong usage, 1 for a failure."""
        return EXIT_USAGE if self.error.source is Source.DOWNSTREAM else EXIT_FAILURE


class ControlRefusedError(CommandError):
    """Control answered with problem details: its code stands in place of ours.

    Args:
        code: What control calls it.
        status: HTTP status of the answer.
        detail: What is wrong and where; no secrets.
        remedy: What to do about it; the general advice when "".
        faults: The members of the request that are wrong, as control lists them.
    """

    def __init__(
        self,
        code: str,
        status: int,
        detail: str,
        remedy: str = "",
        faults: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """See the class."""
        super().__init__(CONTROL_FAILED, detail, remedy)
        self._code = code
        self.status = status
        self.faults = faults

    @property
    def code(self) -> str:
        """The code that programs switch on."""
        return self._code
