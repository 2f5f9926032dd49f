"""`penstock upstreams`: the engines that requests are sent to."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.cli.bodies import NOTHING, clearable, given, require_changes
from penstock.cli.errors import BAD_OPTION, CommandError
from penstock.cli.instance import DataOption, connect
from penstock.cli.kinds import (
    NAME_AND_ID,
    Kind,
    add_delete,
    add_show,
    add_switches,
    clearable_reference,
)
from penstock.cli.options import option
from penstock.cli.output import JsonOption, examples
from penstock.cli.records import LimitOption, text_of
from penstock.cli.resolving import CREDENTIALS, UPSTREAMS, get_catalog_object

if TYPE_CHECKING:
    from penstock.cli.control_client import ControlClient, Row
    from penstock.cli.resolving import NameBook

KIND = Kind(
    path=UPSTREAMS,
    columns=lambda _: (
        *NAME_AND_ID,
        ("Provider", text_of("provider")),
        ("Endpoints", lambda row: row.get("discover") or text_of("endpoints")(row)),
        ("Region", text_of("region")),
        ("Data class", text_of("data_class")),
        ("Disabled", text_of("is_disabled")),
    ),
    fields=lambda names: (
        ("Credential", lambda row: _credential_words(row, names)),
        ("Headers", text_of("forward_headers")),
        ("Timeouts", text_of("timeouts")),
        ("Connections", text_of("max_connections")),
        ("CA file", text_of("tls_ca_file")),
        ("Takes priority", text_of("takes_priority")),
        ("KV events", text_of("kv_events")),
    ),
    expendable=("Id", "Endpoints"),
    example="gpu-pool",
)

app = typer.Typer(
    name=KIND.group,
    help="Manage upstreams: the engines and services that answer.",
    no_args_is_help=True,
)


def _timeout(name: str, text: str, least: int = 1) -> Any:
    return option(f"--timeout-ms-{name}", f"{text}, in ms.", "N", min=least)


EndpointOption = Annotated[
    list[str] | None,
    option(
        "--endpoint",
        "Address, as http://host:port or grpc://host:8001, with one port, 8000-8003 or 8000,8002; "
        "repeat it.",
        "URL",
    ),
]
DiscoverOption = Annotated[
    str | None,
    option(
        "--discover",
        "Where the nodes find its addresses: dns://NAME:PORT, srv://_SERVICE._PROTOCOL.NAME, "
        "file:///PATH.json, or kubernetes://NAMESPACE/ and services/NAME:PORT, "
        "pods/LABEL=VALUE:PORT or inferencepools/NAME; or, for engines that register themselves, "
        "registered://UPSTREAM?networks=NETWORK.",
        "SOURCE",
    ),
]
ProviderOption = Annotated[
    str | None,
    option("--provider", "What serves it, one of `penstock providers list`.", "PROVIDER"),
]
RegionOption = Annotated[str | None, option("--region", "Where it is, e.g. eu-de.", "REGION")]
DataClassOption = Annotated[
    str | None, option("--data-class", "What data may go there, e.g. eu_only.", "CLASS")
]
CredentialOption = Annotated[
    str | None,
    option(
        "--credential",
        "What it lets us in with: a credential by name or id, or env:NAME or file:PATH on the "
        "nodes.",
        "CREDENTIAL",
    ),
]
HeaderOption = Annotated[
    list[str] | None,
    option("--header", "Request header to pass on; x-trace-* means all such; repeat it.", "NAME"),
]
CaFileOption = Annotated[
    str | None,
    option("--tls-ca-file", "PEM file on the nodes to verify https endpoints with.", "PATH"),
]
ConnectionsOption = Annotated[
    int | None,
    option("--max-connections", "Connections of one worker to one endpoint.", "N", min=1),
]
PriorityOption = Annotated[
    bool | None,
    typer.Option(
        "--takes-priority/--no-priority",
        help="Whether its engines were started to serve urgent requests first.",
        show_default=False,
    ),
]
KvEventsOption = Annotated[
    str | None,
    option(
        "--kv-events",
        "Ports of its endpoints' hosts where engines publish events of their KV caches, as 5557; "
        "behind a slash where those that were missed can be had again, as 5557/5558.",
        "PORTS",
    ),
]
ConnectOption = Annotated[int | None, _timeout("connect", "Longest wait for a connection")]
FirstByteOption = Annotated[int | None, _timeout("first-byte", "Longest wait for an answer")]
PrefillOption = Annotated[
    int | None,
    _timeout("first-byte-per-1k-tokens", "So much longer for each 1,000 input tokens", least=0),
]
IdleOption = Annotated[int | None, _timeout("idle", "Longest silence within an answer")]
TotalOption = Annotated[int | None, _timeout("total", "Longest time for a whole request")]


@app.command(
    "update",
    help="Change an upstream; what is not named stays.\n\n"
    "--endpoint and --header replace the whole list. `none` takes away what was set by --region, "
    "--data-class, --credential, --header, --tls-ca-file or --kv-events.",
    epilog=examples(
        "penstock upstreams update gpu-pool --endpoint http://10.0.0.5:8000",
        "penstock upstreams update gpu-pool --credential none --timeout-ms-idle 30000",
    ),
)
@app.command(
    "create",
    help="Create an upstream: --endpoint or --discover is needed, the rest has defaults.",
    epilog=examples(
        "penstock upstreams create gpu-pool --endpoint http://10.0.0.5:8000",
        "penstock upstreams create gpu-pool --discover dns://vllm.models.svc:8000",
        "penstock upstreams create openai --credential openai \\",
        "  --endpoint https://api.openai.com",
        "penstock upstreams create gpu-pool --provider vllm \\",
        "  --endpoint http://10.0.0.5:8000 --endpoint http://10.0.0.6:8000 \\",
        "  --region eu-de --data-class eu_only --credential env:VLLM_KEY \\",
        "  --header 'x-trace-*' --timeout-ms-first-byte 60000",
    ),
)
def write(  # noqa: PLR0913  # each option is a parameter: Typer reads them from here
    ctx: typer.Context,
    *,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Its name; it stays.", show_default=False)
    ],
    endpoint: EndpointOption = None,
    discover: DiscoverOption = None,
    provider: ProviderOption = None,
    region: RegionOption = None,
    data_class: DataClassOption = None,
    credential: CredentialOption = None,
    header: HeaderOption = None,
    tls_ca_file: CaFileOption = None,
    max_connections: ConnectionsOption = None,
    takes_priority: PriorityOption = None,
    kv_events: KvEventsOption = None,
    timeout_ms_connect: ConnectOption = None,
    timeout_ms_first_byte: FirstByteOption = None,
    timeout_ms_first_byte_per_1k_tokens: PrefillOption = None,
    timeout_ms_idle: IdleOption = None,
    timeout_ms_total: TotalOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create an upstream, or change one: both are told the same."""
    members = given(provider=provider, max_connections=max_connections)
    members |= _place_members(endpoint, discover)
    members |= given(takes_priority=takes_priority)
    members |= clearable(region=region, data_class=data_class, tls_ca_file=tls_ca_file)
    members |= clearable(kv_events=kv_events)
    if header:
        members["forward_headers"] = [] if header == [NOTHING] else header
    timeouts = given(
        connect_ms=timeout_ms_connect,
        first_byte_ms=timeout_ms_first_byte,
        first_byte_ms_per_1k_tokens=timeout_ms_first_byte_per_1k_tokens,
        idle_ms=timeout_ms_idle,
        total_ms=timeout_ms_total,
    )
    members |= given(timeouts=timeouts or None)
    with connect(data) as client:
        members |= _credential_members(client, credential)
        if ctx.info_name == "create":
            _create(client, {"name": name, **members}, as_json=as_json)
        else:
            _update(client, name, members, as_json=as_json)


@app.command(
    "list",
    epilog=examples("penstock upstreams list", "penstock upstreams list --region eu-de --json"),
)
def list_all(
    *,
    provider: ProviderOption = None,
    region: RegionOption = None,
    data_class: DataClassOption = None,
    limit: LimitOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """List upstreams, oldest first. With --json: one object a line."""
    filters = given(provider=provider, region=region, data_class=data_class)
    with connect(data) as client:
        KIND.show_all(client, filters, limit=limit, as_json=as_json)


add_show(app, KIND)
add_switches(app, KIND)
add_delete(app, KIND)


def _create(client: "ControlClient", body: "Row", *, as_json: bool) -> None:
    if "endpoints" not in body:
        remedy = "Add --endpoint URL, or --discover SOURCE."
        raise CommandError(BAD_OPTION, "It is not said where it is.", remedy)
    KIND.create(client, body, as_json=as_json)


def _update(client: "ControlClient", name: str, changes: "Row", *, as_json: bool) -> None:
    require_changes(changes, "upstreams update")
    before = get_catalog_object(client, UPSTREAMS, name)
    version = None
    if "timeouts" in changes:
        changes["timeouts"] = before["timeouts"] | changes["timeouts"]
        # They are made from what was read, so nobody may have changed it since.
        version = before["version"]
    KIND.change(client, before, changes, as_json=as_json, version=version)


def _place_members(endpoint: list[str] | None, discover: str | None) -> "Row":
    """Return what says where an upstream is: each of the two takes the other one away."""
    if endpoint and discover:
        raise CommandError(BAD_OPTION, "--endpoint and --discover exclude each other.")
    if discover:
        return {"discover": discover, "endpoints": []}
    return {"endpoints": endpoint, "discover": None} if endpoint else {}


def _credential_members(client: "ControlClient", credential: str | None) -> "Row":
    if credential is None:
        return {}
    is_reference = credential.startswith(("env:", "file:"))
    # They exclude each other: each takes the other one away.
    members = {"credential_id": None, "credential_reference": None}
    if is_reference:
        return {**members, "credential_reference": credential}
    return {**members, **clearable_reference(client, "credential_id", CREDENTIALS, credential)}


def _credential_words(row: "Row", names: "NameBook") -> str:
    return row.get("credential_reference") or names.name(CREDENTIALS, row.get("credential_id"))
