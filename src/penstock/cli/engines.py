"""`penstock engines`: what only operators have engines do."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.cli.bodies import given
from penstock.cli.errors import BAD_OPTION, ENGINE_SILENT, EXIT_FAILURE, CommandError
from penstock.cli.instance import DataOption, connect
from penstock.cli.options import option
from penstock.cli.output import JsonOption, console, examples, print_json
from penstock.cli.records import show_list, text_of
from penstock.cli.resolving import ENGINE_OPERATIONS, UPSTREAMS, get_catalog_object

if TYPE_CHECKING:
    from penstock.cli.control_client import ControlClient, Row

app = typer.Typer(
    name="engines",
    help="Have engines do what callers cannot ask of them: sleep, load adapters, forget caches.",
    no_args_is_help=True,
)

_LOOK_S = 0.3
_ASK_S = 5.0
_ON_ITS_WAY = ("waiting", "running")
_OK = range(200, 300)


@app.command(
    "operations",
    epilog=examples("penstock engines operations", "penstock engines operations vllm --json"),
)
def operations(
    *,
    provider: Annotated[
        str | None,
        typer.Argument(metavar="[PROVIDER]", help="Only of this kind.", show_default=False),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List what each kind of engine can be told to do. With --json: one object a line."""
    from penstock.engines.registry import ENGINES  # noqa: PLC0415  # start-up time

    rows = [
        {
            "provider": engine.name,
            "operation": each.name,
            "required": list(each.required),
            "optional": list(each.optional),
            "title": each.title,
        }
        for engine in ENGINES.values()
        for each in engine.operations
        if provider in {None, engine.name}
    ]
    show_list(
        iter(rows),
        (
            ("Provider", text_of("provider")),
            ("Operation", text_of("operation")),
            ("Arguments", _arguments_words),
            ("What it does", text_of("title")),
        ),
        limit=len(rows) or None,
        as_json=as_json,
        nothing="There are none.",
        expendable=("What it does",),
    )


@app.command(
    "detect",
    epilog=examples("penstock engines detect http://10.0.0.5:8000"),
)
def detect(
    *,
    url: Annotated[str, typer.Argument(metavar="URL", help="Of the engine.", show_default=False)],
    as_json: JsonOption = False,
) -> None:
    """Ask an engine which kind it is, from here, and print the provider to write for it.

    The exit code is 1 when it does not show, or the engine does not answer.
    """
    import httpx  # noqa: PLC0415  # start-up time

    from penstock.engines.detecting import detect_provider  # noqa: PLC0415  # start-up time
    from penstock.engines.registry import ENGINES  # noqa: PLC0415  # start-up time

    with httpx.Client(base_url=url, timeout=_ASK_S, trust_env=False) as client:

        def read(path: str) -> object:
            answer = client.get(path)
            try:
                return answer.json() if answer.is_success else None
            except ValueError:
                return None

        try:
            provider = detect_provider(read)
        except (httpx.HTTPError, httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            cause = str(error) or type(error).__name__
            raise CommandError(
                ENGINE_SILENT, f"{url} does not answer: {cause}", "Is it that address?"
            ) from None
    if as_json:
        print_json({"provider": provider})
    elif provider is None:
        console().print("It does not show; openai_compatible assumes nothing.")
    else:
        console().print(f"{provider}: {ENGINES[provider].title}")
    if provider is None:
        raise typer.Exit(EXIT_FAILURE)


@app.command(
    "operate",
    epilog=examples(
        "penstock engines operate gpu-pool sleep --argument level=1",
        "penstock engines operate gpu-pool wake_up --endpoint http://10.0.0.5:8000",
        "penstock engines operate gpu-pool load_lora_adapter \\",
        "  --argument lora_name=legal --argument lora_path=/adapters/legal --json",
    ),
)
def operate(
    *,
    upstream: Annotated[
        str, typer.Argument(metavar="UPSTREAM", help="Its name or id.", show_default=False)
    ],
    operation: Annotated[
        str,
        typer.Argument(
            metavar="OPERATION", help="One of `penstock engines operations`.", show_default=False
        ),
    ],
    argument: Annotated[
        list[str] | None,
        option("--argument", "What it is to be done with; repeat it.", "NAME=VALUE"),
    ] = None,
    endpoint: Annotated[
        str | None, option("--endpoint", "Only there; else at all endpoints.", "URL")
    ] = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Have the engines of an upstream do something, and wait until a node says what came of it.

    The exit code is 1 unless all endpoints that are meant said yes.
    """
    arguments = dict(map(_read_argument, argument or ()))
    with connect(data) as client:
        found = get_catalog_object(client, UPSTREAMS, upstream)
        body = given(endpoint=endpoint)
        body |= {"upstream_id": found["id"], "operation": operation, "arguments": arguments}
        row = _wait(client, client.change("POST", ENGINE_OPERATIONS, body))
    if as_json:
        print_json(row)
    else:
        _show(row)
    outcomes = row["outcomes"]
    if not outcomes or any(each["status"] not in _OK for each in outcomes):
        raise typer.Exit(EXIT_FAILURE)


def _read_argument(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign:
        raise CommandError(BAD_OPTION, f"No value in --argument {text!r}.", "Write NAME=VALUE.")
    return name, value


def _wait(client: "ControlClient", row: "Row") -> "Row":
    while row["status"] in _ON_ITS_WAY:
        time.sleep(_LOOK_S)
        row = client.get(f"{ENGINE_OPERATIONS}/{row['id']}")
    return row


_ENDS = {
    "expired": "No node took it within a minute: is one running? Nothing was done.",
    "lost": "A node took it and never said what came of it: it may have been done.",
}


def _show(row: "Row") -> None:
    if row["status"] in _ENDS:
        console().print(_ENDS[row["status"]], markup=False)
    if row["fault"]:
        console().print(row["fault"], markup=False)
    for each in row["outcomes"]:
        words = (each["endpoint"], str(each["status"] or "no answer"), each["text"])
        console().print("  ".join(words).rstrip(), markup=False)


def _arguments_words(row: "Row") -> str:
    return ", ".join([*row["required"], *(f"[{name}]" for name in row["optional"])])
