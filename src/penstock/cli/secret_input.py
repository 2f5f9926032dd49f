"""Takes a secret in, from where other people on this machine cannot see it."""

import sys
from collections.abc import Callable
from getpass import getpass
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from penstock.cli.errors import BAD_OPTION, CommandError

MAX_SECRET_BYTES = 65_536

_REMEDY = "Name a file with --secret-file, or pipe the secret in."

SecretFileOption = Annotated[
    Path | None,
    typer.Option(
        "--secret-file",
        help="File that holds the secret. Without it, it is read from stdin, or asked for on a "
        "terminal. It is no argument, because every user of a machine can see those.",
        metavar="FILE",
        show_default=False,
    ),
]


def read_secret(
    file: Path | None,
    *,
    stdin: BinaryIO | None = None,
    ask: Callable[[str], str] = getpass,
) -> str:
    """Return the secret that a file or stdin holds, or that is typed without being shown.

    A line break behind it does not belong to it.

    Args:
        file: Value of `--secret-file`, if given.
        stdin: Replaces the process's own in tests.
        ask: Asks on the terminal.

    Raises:
        CommandError: There is none, it cannot be read, or it is no text.
    """
    stdin = sys.stdin.buffer if stdin is None else stdin
    if file is not None:
        where, content = str(file), _read_file(file)
    elif stdin.isatty():
        where, content = "What was typed", ask("Secret: ").encode()
    else:
        where, content = "stdin", stdin.read(MAX_SECRET_BYTES + 1)
    if len(content) > MAX_SECRET_BYTES:
        detail = f"{where} holds more than {MAX_SECRET_BYTES:,} bytes, which is no secret."
        raise CommandError(BAD_OPTION, detail, _REMEDY)
    try:
        secret = content.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise CommandError(BAD_OPTION, f"{where} holds no UTF-8 text.", _REMEDY) from None
    if not secret:
        raise CommandError(BAD_OPTION, f"{where} holds no secret.", _REMEDY)
    return secret


def _read_file(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(MAX_SECRET_BYTES + 1)
    except OSError as error:
        detail = f"{file} cannot be read: {error.strerror}."
        raise CommandError(BAD_OPTION, detail, "Name a file that you may read.") from None
