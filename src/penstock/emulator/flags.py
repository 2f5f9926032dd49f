"""The emulator's settings as command-line flags, for whichever parser."""

import argparse
import ast
import inspect
import itertools
import textwrap
from collections.abc import Mapping, Sequence
from typing import Literal, get_args, get_origin

import msgspec

from penstock.emulator.settings import EmulatorSettings


class Flag(msgspec.Struct, frozen=True):
    """One setting as a flag."""

    field: str
    """Name in `EmulatorSettings`."""
    option: str
    """`--ttft-ms`; a boolean also has `--no-...`."""
    kind: type[bool] | type[int] | type[float] | type[str]
    """What the value is parsed as; ranges are checked by `settings_from`."""
    default: bool | int | float | str
    choices: tuple[str, ...]
    """The only values, if they are named."""
    text: str
    """What it does, in one paragraph."""


class BadSettingError(Exception):
    """A setting is unknown or of no use; the message says which and why."""


def list_flags() -> tuple[Flag, ...]:
    """Return a flag for every setting: the server's own first, in the order of their fields."""
    texts = _field_texts(EmulatorSettings)
    own = EmulatorSettings.__annotations__
    fields = sorted(
        msgspec.structs.fields(EmulatorSettings), key=lambda field: field.name not in own
    )
    return tuple(_flag(field, texts[field.name]) for field in fields)


def settings_from(values: Mapping[str, object]) -> EmulatorSettings:
    """Return settings with these values, by field name; what is absent has its default.

    Raises:
        BadSettingError: See there.
    """
    try:
        return msgspec.convert(dict(values), EmulatorSettings)
    except msgspec.ValidationError as error:
        raise BadSettingError(str(error)) from None


def parse_arguments(arguments: Sequence[str]) -> EmulatorSettings:
    """Return the settings of a command line, without the program's name.

    Raises:
        SystemExit: Help was asked for (0), or a flag is unknown or of no use (2, said on
            standard error).
    """
    parser = argparse.ArgumentParser(
        prog="python -m penstock.emulator",
        description="A model server to test against, with faults on demand.",
    )
    for flag in list_flags():
        text = f"{flag.text} Default: {flag.default!r}.".replace("%", "%%")
        if flag.kind is bool:
            parser.add_argument(
                flag.option,
                dest=flag.field,
                action=argparse.BooleanOptionalAction,
                default=flag.default,
                help=text,
            )
        else:
            parser.add_argument(
                flag.option,
                dest=flag.field,
                type=flag.kind,
                choices=flag.choices or None,
                default=flag.default,
                metavar=None if flag.choices else flag.kind.__name__.upper(),
                help=text,
            )
    try:
        return settings_from(vars(parser.parse_args(arguments)))
    except BadSettingError as error:
        parser.error(str(error))


def _flag(field: msgspec.structs.FieldInfo, text: str) -> Flag:
    kind = field.type
    if get_origin(kind) is Literal:
        return Flag(field.name, _option(field.name), str, field.default, get_args(kind), text)
    if kind not in (bool, str):
        (kind, *_) = get_args(kind)
    return Flag(field.name, _option(field.name), kind, field.default, (), text)


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _field_texts(settings: type) -> dict[str, str]:
    """Return the docstring below each field, of the class and those that it extends."""
    texts: dict[str, str] = {}
    for owner in settings.__mro__:
        if owner is msgspec.Struct:
            break
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
        statements = body.body if isinstance(body, ast.ClassDef) else []
        for field, text in itertools.pairwise(statements):
            match field, text:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str(said))),
                ):
                    texts[name] = " ".join(said.split())
    return texts
