"""`penstock emulator`: a model server to test against."""

import gc
import inspect
import os
import re
import signal
import sys
from collections.abc import Callable
from typing import Annotated, Any, Literal

import typer

from penstock.cli.errors import BAD_OPTION, EMULATOR_FAILED, CommandError
from penstock.cli.output import JsonOption, examples, print_json
from penstock.emulator.flags import BadSettingError, Flag, list_flags, settings_from
from penstock.emulator.settings import EmulatorSettings

EXAMPLES = examples(
    "penstock emulator --port 18080 --ttft-ms 200 --itl-ms 20",
    "penstock emulator --models '*' --usage never",
    "penstock emulator --fault disconnect --fault-after 5",
)
_OURS = frozenset({"announce"})
"""Settings that are no option here: this command always says where it listens."""


def emulator(*, as_json: bool, **values: object) -> None:
    """Run an OpenAI-compatible model server that emulates timing, usage habits and faults.

    It serves chat, completions, embeddings and the list of models; no model runs in it. What the
    options say holds for requests that do not say otherwise in their own headers: the header of
    `--ttft-ms` is `x-emulator-ttft-ms`, and so on. SIGTERM or Ctrl-C ends it.
    """
    try:
        settings = settings_from(values)
    except BadSettingError as error:
        remedy = "`penstock emulator --help` says what each option takes."
        raise CommandError(BAD_OPTION, _naming_options(str(error)), remedy) from None
    import uvloop  # noqa: PLC0415  # start-up time of the other commands

    try:
        uvloop.run(_serve(settings, as_json=as_json))
    except OSError as error:
        # What asyncio says itself names address and error twice.
        number = error.errno or 0
        why = os.strerror(number) if number > 0 else error.strerror or str(error)
        what = f"cannot listen on {settings.host}:{settings.port}"
        if error.filename is not None:
            what = f"cannot write {error.filename}"
        detail = f"The emulator {what}: {why}."
        raise CommandError(EMULATOR_FAILED, detail) from None


async def _serve(settings: EmulatorSettings, *, as_json: bool) -> None:
    import asyncio  # noqa: PLC0415  # start-up time

    from penstock.emulator.server import serve  # noqa: PLC0415  # as above

    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with await serve(settings) as server:
        # What is there now stays, so the collector need not look at it.
        gc.freeze()
        if as_json:
            print_json({"event": "ready", "url": server.url, "models": settings.model_names()})
        else:
            models = ", ".join(settings.model_names()) or "every model"
            typer.echo(f"The emulator serves {models} on {server.url}. Ctrl-C stops it.")
        sys.stdout.flush()
        await stopped.wait()


def _naming_options(text: str) -> str:
    """Say `--ttft-ms` where the settings say `$.ttft_ms`."""
    return re.sub(r"\$\.(\w+)", lambda match: "--" + match[1].replace("_", "-"), text) + "."


def _parameter(flag: Flag) -> inspect.Parameter:
    names = [flag.option]
    if flag.kind is bool:
        names = [f"{flag.option}/--no-{flag.option.removeprefix('--')}"]
    option = typer.Option(*names, help=flag.text, show_choices=not flag.choices)
    kind: Any = Literal[flag.choices] if flag.choices else flag.kind
    return inspect.Parameter(
        flag.field,
        inspect.Parameter.KEYWORD_ONLY,
        default=flag.default,
        annotation=Annotated[kind, option],
    )


def _with_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the emulator's own flags as its options, so that there is one list."""
    parameters = [_parameter(flag) for flag in list_flags() if flag.field not in _OURS]
    parameters.append(
        inspect.Parameter(
            "as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=JsonOption
        )
    )
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


emulator = _with_flags(emulator)
