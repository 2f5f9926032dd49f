"""`penstock dev`: everything on this machine, from one command."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from penstock.cli.instance import DataOption, data_folder
from penstock.cli.output import JsonOption, examples
from penstock.kit.logs.setup import LevelName

MOST_WORKERS = 256
LogForm = Literal["json", "text"]
_LAST_PORT = 65_535

EXAMPLES = examples(
    "penstock dev                                      two models, no setup",
    "penstock dev --engine http://127.0.0.1:8000       your engine's models",
    "penstock dev --config penstock.yaml --workers 2   your configuration",
)


def _port(what: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(
        min=0, max=_LAST_PORT, help=f"Port of {what}; any free one when 0.", metavar="PORT"
    )
    return option


_LabelOption = Annotated[
    list[str] | None,
    typer.Option(
        help="Let requests use this name in x-penstock-labels, instead of the usual ones; again "
        "for further ones.",
        metavar="NAME",
    ),
]


_MetadataOption = Annotated[
    list[str] | None,
    typer.Option(
        "--metadata-label",
        help="Take this member of a request's metadata as a label, too; again for further ones.",
        metavar="NAME",
        show_default="none",
    ),
]


_StrictOption = Annotated[
    bool,
    typer.Option(
        help="Wait for the disk (fsync) before the last byte of each answer, so that not "
        "even a power cut loses a record."
    ),
]


_WorkersOption = Annotated[
    int, typer.Option(min=1, max=MOST_WORKERS, help="Gateway processes that share the port.")
]


_LogFormatOption = Annotated[
    LogForm, typer.Option(help="How the lines of the processes' logs look: json or text.")
]


_LogLevelOption = Annotated[
    LevelName,
    typer.Option(help="What the processes log: this level and those above it."),
]


_GrpcOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=_LAST_PORT,
        help="Port on which the gateway speaks gRPC, such as 8001.",
        metavar="PORT",
        show_default="none",
    ),
]


def dev(  # noqa: PLR0913  # each option is a parameter: Typer reads them from here
    *,
    gateway_port: Annotated[int, _port("the gateway, where callers come")] = 8080,
    control_port: Annotated[int, _port("the control plane: status page and usage API")] = 8081,
    metrics_port: Annotated[int, _port("the metrics for Prometheus")] = 9464,
    grpc_port: _GrpcOption = None,
    data: DataOption = None,
    workers: _WorkersOption = 1,
    engine: Annotated[
        list[str] | None,
        typer.Option(
            help="URL of an OpenAI-compatible engine, instead of the built-in ones. Repeat it for "
            "several endpoints of the same models.",
            metavar="URL",
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="Serve only this model; repeat it for several. Without it, what the engine "
            "lists, or both built-in models.",
            metavar="NAME",
        ),
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(
            help="Use this API key, 16 characters or more, from now on, instead of the one that "
            "is made at the first start.",
            metavar="KEY",
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="Serve from this penstock.yaml instead of the data folder's.", metavar="FILE"
        ),
    ] = None,
    journal_strict: _StrictOption = False,
    label: _LabelOption = None,
    metadata_label: _MetadataOption = None,
    log_format: _LogFormatOption = "text",
    log_level: _LogLevelOption = "info",
    as_json: JsonOption = False,
) -> None:
    """Run everything on 127.0.0.1: gateway, control plane, metrics and two models.

    Prints an API key, a curl line and where to look next, and writes the same facts to dev.json
    in the data folder. Ctrl-C stops it in order: streams finish, usage is booked; a second Ctrl-C
    hurries. Data and key are there again at the next start.

    The data folder's penstock.yaml is written anew at each start as long as its first line says
    so; delete that line and the file is yours. It is applied to the control plane, as the set
    `dev` with pruning, at the start and whenever it changes.
    """
    from penstock.cli.launch.options import DevOptions  # noqa: PLC0415  # start-up time
    from penstock.cli.launch.reporter import JsonReporter, TextReporter  # noqa: PLC0415  # as above
    from penstock.cli.launch.session import run_dev  # noqa: PLC0415  # as above

    options = DevOptions(
        data=data_folder(data),
        gateway_port=gateway_port,
        control_port=control_port,
        metrics_port=metrics_port,
        grpc_port=grpc_port,
        workers=workers,
        engines=tuple(engine or ()),
        models=tuple(dict.fromkeys(model or ())),
        api_key=api_key,
        config=config.absolute() if config is not None else None,
        is_journal_strict=journal_strict,
        labels=tuple(dict.fromkeys(label or ())),
        metadata_labels=tuple(dict.fromkeys(metadata_label or ())),
        log_format=log_format,
        log_level=log_level,
    )
    run_dev(options, JsonReporter() if as_json else TextReporter())
