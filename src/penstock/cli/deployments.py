"""`penstock deployments`: one model on one upstream each."""

from typing import Annotated

import typer

from penstock.cli.bodies import clearable, given, require_changes
from penstock.cli.instance import DataOption, connect
from penstock.cli.kinds import (
    NAME_AND_ID,
    Kind,
    NameArgument,
    add_delete,
    add_show,
    add_switches,
    clearable_reference,
    find_id,
    object_argument,
)
from penstock.cli.options import option
from penstock.cli.output import JsonOption, examples
from penstock.cli.records import LimitOption, text_of
from penstock.cli.resolving import (
    CREDENTIALS,
    DEPLOYMENTS,
    UPSTREAMS,
    get_catalog_object,
)

KIND = Kind(
    path=DEPLOYMENTS,
    columns=lambda names: (
        *NAME_AND_ID,
        ("Upstream", lambda row: names.name(UPSTREAMS, row["upstream_id"])),
        ("Model", text_of("model")),
        ("Disabled", text_of("is_disabled")),
    ),
    fields=lambda names: (
        ("Credential", lambda row: names.name(CREDENTIALS, row["credential_id"])),
        ("Output tokens", text_of("max_output_tokens")),
        ("Usage in chunks", text_of("continuous_usage")),
        ("Adapter of", text_of("adapter_of")),
        ("Adapter path", text_of("adapter_path")),
        ("Tokenizer", text_of("tokenizer")),
    ),
    expendable=("Id",),
    example="llama-70b-gpu",
)

app = typer.Typer(
    name=KIND.group, help="Manage deployments: models on upstreams.", no_args_is_help=True
)


_UPSTREAM = option("--upstream", "Upstream that serves it, by name or id.", "UPSTREAM")
_MODEL = option("--model", "The upstream's own name of the model.", "MODEL")
CredentialOption = Annotated[
    str | None,
    option(
        "--credential", "Credential used instead of the upstream's, by name or id.", "CREDENTIAL"
    ),
]
OutputTokensOption = Annotated[
    int | None,
    option("--max-output-tokens", "Most output tokens a request may ask for.", "N", min=1),
]
AdapterOfOption = Annotated[
    str | None,
    option("--adapter-of", "The upstream's model that MODEL is a LoRA adapter of.", "MODEL"),
]
TokenizerOption = Annotated[
    str | None,
    option(
        "--tokenizer",
        "Folder on the nodes with the model's tokenizer.json: prompts go where engines tell that "
        "their KV caches have them.",
        "PATH",
    ),
]
AdapterPathOption = Annotated[
    str | None,
    option("--adapter-path", "Where engines find the adapter, to load it when needed.", "PATH"),
]
UsageOption = Annotated[
    bool | None,
    typer.Option(
        "--continuous-usage/--final-usage",
        help="Have the engine say its usage in every chunk, or in the last one alone.",
        show_default=False,
    ),
]


@app.command(
    "create",
    epilog=examples(
        "penstock deployments create llama-70b-gpu --upstream gpu-pool \\",
        "  --model meta-llama/Llama-3.3-70B-Instruct",
        "penstock deployments create legal --upstream gpu-pool --model legal \\",
        "  --adapter-of meta-llama/Llama-3.3-70B-Instruct --adapter-path /adapters/legal",
    ),
)
def create(  # noqa: PLR0913  # as in `upstreams`
    *,
    name: NameArgument,
    upstream: Annotated[str, _UPSTREAM],
    model: Annotated[str, _MODEL],
    credential: CredentialOption = None,
    max_output_tokens: OutputTokensOption = None,
    continuous_usage: UsageOption = None,
    adapter_of: AdapterOfOption = None,
    adapter_path: AdapterPathOption = None,
    tokenizer: TokenizerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create a deployment: a model on an upstream, for routes to choose."""
    with connect(data) as client:
        body = given(
            name=name,
            upstream_id=find_id(client, UPSTREAMS, upstream),
            model=model,
            max_output_tokens=max_output_tokens,
            continuous_usage=continuous_usage,
        )
        body |= clearable(adapter_of=adapter_of, adapter_path=adapter_path, tokenizer=tokenizer)
        body |= clearable_reference(client, "credential_id", CREDENTIALS, credential)
        KIND.create(client, body, as_json=as_json)


@app.command(
    "list",
    epilog=examples(
        "penstock deployments list", "penstock deployments list --upstream gpu-pool --json"
    ),
)
def list_all(
    *,
    upstream: Annotated[str | None, _UPSTREAM] = None,
    model: Annotated[str | None, _MODEL] = None,
    limit: LimitOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """List deployments, oldest first. With --json: one object a line."""
    with connect(data) as client:
        filters = given(upstream_id=find_id(client, UPSTREAMS, upstream), model=model)
        KIND.show_all(client, filters, limit=limit, as_json=as_json)


add_show(app, KIND)


@app.command(
    "update",
    epilog=examples(
        "penstock deployments update llama-70b-gpu --max-output-tokens 8192",
        "penstock deployments update llama-70b-gpu --credential none",
    ),
)
def update(  # noqa: PLR0913  # as in `upstreams`
    *,
    name: Annotated[str, object_argument(KIND)],
    upstream: Annotated[str | None, _UPSTREAM] = None,
    model: Annotated[str | None, _MODEL] = None,
    credential: CredentialOption = None,
    max_output_tokens: OutputTokensOption = None,
    continuous_usage: UsageOption = None,
    adapter_of: AdapterOfOption = None,
    adapter_path: AdapterPathOption = None,
    tokenizer: TokenizerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change a deployment; what is not named stays.

    `--credential none` takes it away: the upstream's is used. `--adapter-path none` ends that the
    adapter is loaded when it is needed.
    """
    with connect(data) as client:
        changes = given(
            upstream_id=find_id(client, UPSTREAMS, upstream),
            model=model,
            max_output_tokens=max_output_tokens,
            continuous_usage=continuous_usage,
        )
        changes |= clearable(adapter_of=adapter_of, adapter_path=adapter_path, tokenizer=tokenizer)
        changes |= clearable_reference(client, "credential_id", CREDENTIALS, credential)
        require_changes(changes, "deployments update")
        before = get_catalog_object(client, DEPLOYMENTS, name)
        KIND.change(client, before, changes, as_json=as_json)


add_switches(app, KIND)
add_delete(app, KIND)
