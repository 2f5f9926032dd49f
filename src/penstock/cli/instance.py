"""Finds the Penstock to talk to: a dev instance by its data folder, or a URL and a token.

What is said wins over what is found: `--data`, then PENSTOCK_URL and PENSTOCK_TOKEN, then
PENSTOCK_DATA, then `.penstock` in the current folder.
"""

import fcntl
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from penstock.cli.errors import BAD_OPTION, NOT_RUNNING, CommandError

if TYPE_CHECKING:
    from penstock.cli.control_client import ControlClient

DEFAULT_DATA = Path(".penstock")
FACTS_FILE = "dev.json"
LOCK_FILE = "dev.lock"

DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        help="Data folder of the dev instance.",
        show_default="PENSTOCK_DATA, else .penstock",
        metavar="DIR",
    ),
]

NodeOption = Annotated[
    Path | None,
    typer.Option(
        "--node",
        help="Data folder of a node on this machine, whose journals are read.",
        show_default="that of the dev instance, if there is one",
        metavar="DIR",
    ),
]


class Facts(msgspec.Struct, frozen=True):
    """What `dev.json` says; unknown members are ignored, so that scripts may read it too."""

    base_url: str
    """Where the gateway listens, without `/v1`."""
    control_url: str
    metrics_url: str
    """Where the node's metrics are, without `/metrics`."""
    api_key: str
    admin_token: str
    data_dir: str
    pid: int = 0
    """The `penstock dev` that wrote it; it may be gone."""
    models: tuple[str, ...] = ()
    """Names a caller may ask for."""
    engines: dict[str, str] = {}
    """URL of each engine that was started along."""
    config: str = ""
    """The configuration file in use."""
    version: str = ""
    started_at: str = ""


class ControlPlane(msgspec.Struct, frozen=True):
    """Where control is, and what lets us in."""

    url: str
    token: str


def data_folder(data: Path | None, environment: Mapping[str, str] | None = None) -> Path:
    """Return the absolute data folder that an option, PENSTOCK_DATA or the default names."""
    if data is None:
        variables = os.environ if environment is None else environment
        data = Path(variables.get("PENSTOCK_DATA") or DEFAULT_DATA)
    return data.expanduser().absolute()


def node_folder(node: Path | None, data: Path | None) -> Path | None:
    """Return the data folder of the node whose journals are to be read, if there is one."""
    if node is None:
        folder = data_folder(data)
        return folder if (folder / "journal").is_dir() else None
    if not (node / "journal").is_dir():
        detail = f"--node {node} has no journals: there is no folder `journal` in it."
        raise CommandError(BAD_OPTION, detail, "Give the data folder of a node's agent.")
    return node


def find_facts(folder: Path) -> Facts | None:
    """Return what the last `penstock dev` on this folder wrote, or None.

    Raises:
        CommandError: The file is there but cannot be read or is not what `penstock dev` writes.
    """
    path = folder / FACTS_FILE
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        detail = f"{path} cannot be read: {error.strerror}."
        raise CommandError(NOT_RUNNING, detail, "Run as the user that owns the folder.") from None
    try:
        return msgspec.json.decode(content, type=Facts)
    except msgspec.DecodeError as error:
        detail = f"{path} is damaged: {error}."
        remedy = "Start `penstock dev` again: it rewrites the file."
        raise CommandError(NOT_RUNNING, detail, remedy) from None


def is_running(folder: Path) -> bool:
    """Tell whether a `penstock dev` runs on this folder: it holds the lock as long as it lives."""
    try:
        descriptor = os.open(folder / LOCK_FILE, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def get_control(data: Path | None, environment: Mapping[str, str] | None = None) -> ControlPlane:
    """Return the control plane to talk to.

    Args:
        data: Value of `--data`, if given.
        environment: Environment variables; the process's own when None.

    Raises:
        CommandError: Nothing says where control is, or what says it has stopped.
    """
    variables = os.environ if environment is None else environment
    url, token = variables.get("PENSTOCK_URL", ""), variables.get("PENSTOCK_TOKEN", "")
    if url and data is None:
        url = _checked_url(url)
        return ControlPlane(url, token or _token_for(url, data_folder(None, variables)))
    folder = data_folder(data, variables)
    facts = find_facts(folder)
    if facts is None:
        if is_running(folder):
            detail = f"The dev instance in {folder} is still starting."
            raise CommandError(NOT_RUNNING, detail, "Try again when it says that it is ready.")
        detail = f"There is no dev instance in {folder}: {FACTS_FILE} is missing."
        raise CommandError(NOT_RUNNING, detail)
    if not is_running(folder):
        detail = f"The dev instance in {folder} does not run."
        raise CommandError(NOT_RUNNING, detail, f"Start it with `penstock dev --data {folder}`.")
    return ControlPlane(facts.control_url.rstrip("/"), token or facts.admin_token)


def connect(data: Path | None) -> "ControlClient":
    """Return a client of the control plane to talk to; a context manager.

    Raises:
        CommandError: As `get_control`.
    """
    from penstock.cli.control_client import ControlClient  # noqa: PLC0415  # start-up time

    return ControlClient(get_control(data))


def _checked_url(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        detail = f"PENSTOCK_URL is {url!r}, which is no http:// or https:// URL."
        raise CommandError(BAD_OPTION, detail, "Set it to control's URL: http://127.0.0.1:8081.")
    return url.rstrip("/")


def _token_for(url: str, folder: Path) -> str:
    # A token is only ever sent to the control plane that it belongs to.
    facts = find_facts(folder)
    if facts is not None and facts.control_url.rstrip("/") == url:
        return facts.admin_token
    detail = f"PENSTOCK_URL is {url}, but PENSTOCK_TOKEN is not set."
    raise CommandError(BAD_OPTION, detail, "Set PENSTOCK_TOKEN to its admin token.")
