"""`python -m penstock.emulator`: the emulator as a process."""

import sys
from collections.abc import Sequence

from penstock.emulator.flags import parse_arguments
from penstock.emulator.server import run


def main(arguments: Sequence[str]) -> int:
    """Serve until SIGTERM or SIGINT; return the exit status."""
    settings = parse_arguments(arguments)
    try:
        run(settings)
    except OSError as error:
        address = f"{settings.host}:{settings.port}"
        sys.stderr.write(f"emulator: cannot start on {address}: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
