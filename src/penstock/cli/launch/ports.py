"""Ports of this machine: which are free, who holds one, which to take."""

import errno
import os
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from penstock.cli.errors import BAD_OPTION, PORT_BUSY, CommandError

HOST = "127.0.0.1"
_LISTENING = "0A"
_LOWEST_UNPRIVILEGED = 1024
_SHOWN = 100
_CLAIMS: dict[int, int] = {}
"""Descriptor, closed by the kernel when we end, by port."""


def is_free(port: int, host: str = HOST) -> bool:
    """Tell whether a server could listen on the port now.

    Asked without SO_REUSEPORT: a port that another gateway shares counts as taken.

    Raises:
        CommandError: This user may not listen on the port.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            # With SO_REUSEADDR a bind alone may pass beside a listener of another address.
            probe.listen(1)
        except PermissionError:
            detail = f"Port {port} is reserved for root."
            remedy = f"Choose a port of {_LOWEST_UNPRIVILEGED} or more."
            raise CommandError(BAD_OPTION, detail, remedy) from None
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return False
    return True


def claim(port: int, host: str = HOST) -> bool:
    """Take the port for what this process starts, unless another `penstock dev` has taken it.

    A server listens seconds after its port was chosen, and who starts meanwhile would choose it,
    too. So a UDP socket of the same number is held until this process ends: it is in the way of no
    TCP server, and the kernel lets go of it however the process ends.
    """
    if port in _CLAIMS:
        return True
    holder = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        holder.bind((host, port))
    except OSError as error:
        holder.close()
        # Where no such socket may be, nobody else has one either.
        return error.errno != errno.EADDRINUSE
    _CLAIMS[port] = holder.detach()
    return True


def pick_free(preferred: Iterable[int], taken: Iterable[int] = (), host: str = HOST) -> int:
    """Claim and return the first free port of `preferred`, or any free port.

    Args:
        preferred: Ports to try, in order; 0 and the like are passed over.
        taken: Ports that are promised to others.
        host: Address that it must be free on.
    """
    promised = set(taken)
    for port in preferred:
        if port < _LOWEST_UNPRIVILEGED or port in promised:
            continue
        # Whether it is free is asked by listening on it, which only the one who claims it may.
        if claim(port, host):
            if is_free(port, host):
                return port
            _let_go(port)
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.bind((host, 0))
            port = int(probe.getsockname()[1])
        if port not in promised and claim(port, host):
            return port


def _let_go(port: int) -> None:
    descriptor = _CLAIMS.pop(port, None)
    if descriptor is not None:
        os.close(descriptor)


def require_free(ports: Mapping[str, int], host: str = HOST) -> None:
    """Refuse ports that are taken or named twice.

    Args:
        ports: Port by the option that sets it, e.g. `--gateway-port`.
        host: Address that they must be free on.

    Raises:
        CommandError: Names the first such port, who holds it if that can be told, and a remedy.
    """
    options: dict[int, str] = {}
    for option, port in ports.items():
        if port in options:
            detail = f"{options[port]} and {option} are both {port}."
            raise CommandError(BAD_OPTION, detail, "Give each its own port.")
        options[port] = option
    for option, port in ports.items():
        if not is_free(port, host):
            holder = find_holder(port)
            detail = f"Port {port} ({option}) is already in use" + (
                f" by process {holder}." if holder else "."
            )
            other = pick_free(range(port + 1, port + 50), ports.values(), host)
            remedy = f"Stop what listens there, or choose another port, e.g. {option} {other}."
            raise CommandError(PORT_BUSY, detail, remedy)


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that listens on a port."""

    pid: int
    command: str

    def __str__(self) -> str:
        """Return number and command line, cut to what a message can take."""
        shown = self.command if len(self.command) <= _SHOWN else self.command[:_SHOWN] + "..."
        return f"{self.pid} ({shown})"


def find_holder(port: int, proc: Path = Path("/proc")) -> Holder | None:
    """Return the process that listens on the port.

    None when it cannot be told: another user's process, or no Linux /proc.
    """
    sockets = {f"socket:[{inode}]" for inode in _listening_inodes(port, proc)}
    if not sockets:
        return None
    for folder in proc.glob("[0-9]*"):
        try:
            if any(str(link.readlink()) in sockets for link in (folder / "fd").iterdir()):
                words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
                return Holder(int(folder.name), " ".join(words).strip())
        except OSError:
            # Not ours to read, or gone meanwhile.
            continue
    return None


def _listening_inodes(port: int, proc: Path) -> set[str]:
    found = set()
    for name in ("tcp", "tcp6"):
        try:
            lines = (proc / "net" / name).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                found.add(fields[9])
    return found
