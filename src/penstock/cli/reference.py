"""The reference of the command line, made from the commands themselves."""

import inspect
from collections.abc import Iterator
from typing import Any

import typer
from typer.main import get_command

_HEAD = """\
# Command line

Made from the code by `penstock docs cli --output docs/reference/cli.md`; do not edit.

Exit codes: 0 for success, 1 for a failure, 2 for wrong usage. Errors go to stderr and say what is
wrong and what to do. Colours are used on terminals only; `NO_COLOR` turns them off.

Commands that talk to a running Penstock find it by `--data DIR`; else by `PENSTOCK_URL` (the
control plane) with `PENSTOCK_TOKEN` (its admin token); else by `PENSTOCK_DATA`, or `.penstock` in
the current folder, where `penstock dev` left `dev.json`.
"""


def render_reference(app: typer.Typer) -> str:
    """Return the reference of all commands that are not hidden, as Markdown."""
    return "\n".join((_HEAD, *_render(get_command(app), app.info.name or "penstock", 2)))


def _render(command: Any, name: str, level: int) -> Iterator[str]:
    yield f"{'#' * level} `{name}`\n"
    yield f"{_paragraphs(command.help or '')}\n"
    options = [param for param in command.params if not getattr(param, "hidden", False)]
    commands = getattr(command, "commands", None)
    if commands is None:
        arguments = [param for param in options if param.param_type_name == "argument"]
        words = " ".join(f"[{argument.display_name_raw}]" for argument in arguments)
        yield f"```\n{name} [OPTIONS] {words}".rstrip() + "\n```\n"
    if options:
        yield "| Option | Meaning | Default |"
        yield "|---|---|---|"
        yield from (_render_option(param) for param in options)
        yield ""
    if command.epilog:
        yield f"{_paragraphs(command.epilog)}\n"
    for child_name, child in (commands or {}).items():
        if not child.hidden:
            yield from _render(child, f"{name} {child_name}", min(level + 1, 4))


def _render_option(param: Any) -> str:
    if param.param_type_name == "argument":
        shown = f"`{param.display_name_raw}`"
    else:
        shown = ", ".join(f"`{name}`" for name in (*param.opts, *param.secondary_opts))
        if not param.is_flag:
            shown += f" `{_value_name(param)}`"
    text = " ".join((param.help or "").split())
    return f"| {shown} | {_cell(text)} | {_cell(_default(param))} |"


def _value_name(param: Any) -> str:
    if param.metavar:
        return str(param.metavar)
    choices = param.type_descriptor.choices
    if choices:
        return ", ".join(str(getattr(choice, "value", choice)) for choice in choices)
    return str(param.bare_type()).upper()


def _default(param: Any) -> str:
    if isinstance(param.show_default, str):
        return param.show_default
    default = param.default
    if default in (None, "", (), []) or callable(default):
        return ""
    if isinstance(default, bool):
        if not param.secondary_opts:
            return ""
        return f"`{(param.opts if default else param.secondary_opts)[0]}`"
    return f"`{default}`"


def _paragraphs(text: str) -> str:
    return inspect.cleandoc(text.partition("\f")[0])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
