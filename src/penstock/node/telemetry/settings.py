"""Where a collector is and what it gets, as settings or as the standard environment says."""

import re
from collections.abc import Mapping
from typing import Annotated, Final, Literal, TypeAlias, get_args
from urllib.parse import unquote

import msgspec
from msgspec import Meta

from penstock.contract.node import Tracing

Protocol: TypeAlias = Literal["http/protobuf", "grpc"]
Sampler: TypeAlias = Literal[
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
]
_Path = Annotated[str, Meta(min_length=1)]
_HEADERS: Final = "OTEL_EXPORTER_OTLP_HEADERS"
_PARENT_BASED: Final = "parentbased_"
_FIELD_NAME: Final = re.compile(r"[A-Za-z0-9_.-]+(?<!-bin)", re.ASCII)
"""Of a header field; gRPC has bytes, and no text, in those that end in `-bin`."""


class OtlpSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A collector, and what it is told about."""

    endpoint: Annotated[str, Meta(pattern=r"^https?://[^/@]+(/[^?#]*)?$")]
    """Where it is: `http://collector:4318`, `:4317` by gRPC; `https` for TLS."""
    protocol: Protocol = "http/protobuf"
    headers: Annotated[str, Meta(pattern=r"^(env|file):")] | None = None
    """Where what it is shown is, as `name=value,other=value`: `env:NAME` or `file:PATH`."""
    ca: _Path | None = None
    """PEM file with who may sign its certificate; whom the machine trusts when None."""
    timeout_s: Annotated[float, Meta(gt=0)] = 10.0
    """How long one delivery may take."""
    service_name: str = "penstock"
    resource_attributes: str = ""
    """Said with everything, as `deployment.environment.name=production,team=inference`."""
    sends_metrics: bool = False
    """Whether it gets what `/metrics` shows."""
    metrics_interval_s: Annotated[float, Meta(ge=1)] = 60.0
    """How often, and the most that one push may take."""
    sends_traces: bool = True
    """Whether it gets spans."""
    sampler: Sampler = "parentbased_always_on"
    """Which requests have their spans sent, by OpenTelemetry's names."""
    ratio: Annotated[float, Meta(ge=0, le=1)] = 1.0
    """Which part of them, where the sampler has one."""
    slow_s: Annotated[float, Meta(gt=0)] | None = 30.0
    """Requests whose answer takes so long to begin are always sent; never for this when None."""
    sends_refused: bool = False
    """Whether requests that limits and budgets refused are always sent."""

    @property
    def tracing(self) -> Tracing | None:
        """How workers decide what is sampled; None without traces."""
        if not self.sends_traces:
            return None
        way = self.sampler.removeprefix(_PARENT_BASED)
        ratio = {"always_on": 1.0, "always_off": 0.0}.get(way, self.ratio)
        return Tracing(ratio, is_parent_based=self.sampler.startswith(_PARENT_BASED))


def read_environment(environment: Mapping[str, str]) -> OtlpSettings | None:
    """Return what the variables of OpenTelemetry say; None when nothing is to be sent.

    Metrics are sent only when they say so: there is `/metrics` already.

    Args:
        environment: Variables by name.

    Raises:
        ValueError: One of them is not what it should be; the message names it.
    """
    endpoint = environment.get("OTEL_EXPORTER_OTLP_ENDPOINT", "")
    is_off = environment.get("OTEL_SDK_DISABLED", "").lower() == "true"
    sends_traces = environment.get("OTEL_TRACES_EXPORTER", "otlp") == "otlp"
    sends_metrics = environment.get("OTEL_METRICS_EXPORTER") == "otlp"
    if not endpoint or is_off or not (sends_traces or sends_metrics):
        return None
    said: dict[str, object] = {
        "endpoint": endpoint,
        "sends_traces": sends_traces,
        "sends_metrics": sends_metrics,
    }
    for variable, name in (
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "protocol"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "ca"),
        ("OTEL_SERVICE_NAME", "service_name"),
        ("OTEL_RESOURCE_ATTRIBUTES", "resource_attributes"),
        ("OTEL_TRACES_SAMPLER", "sampler"),
    ):
        if environment.get(variable):
            said[name] = environment[variable]
    if environment.get(_HEADERS):
        said["headers"] = f"env:{_HEADERS}"
    for variable, name, unit in (
        ("OTEL_TRACES_SAMPLER_ARG", "ratio", 1),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "timeout_s", 1_000),
        ("OTEL_METRIC_EXPORT_INTERVAL", "metrics_interval_s", 1_000),
    ):
        if environment.get(variable):
            said[name] = _number(variable, environment[variable]) / unit
    try:
        return msgspec.convert(said, OtlpSettings)
    except msgspec.ValidationError as error:
        message = f"OTEL_ variables: {error}"
        raise ValueError(message) from None


def _number(variable: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        message = f"{variable} is no number"
        raise ValueError(message) from None


def read_pairs(text: str) -> dict[str, str]:
    """Return what a text says as `name=value,other=value`, values percent-decoded.

    Raises:
        ValueError: It does not; the message has nothing of it, which may be secret.

    >>> read_pairs("a=1, b=x%20y,")
    {'a': '1', 'b': 'x y'}
    """
    pairs = {}
    for member in text.split(","):
        name, sign, value = member.partition("=")
        if not member.strip():
            continue
        if not sign or not name.strip():
            message = "name=value,other=value is expected"
            raise ValueError(message)
        pairs[name.strip()] = unquote(value.strip())
    return pairs


def read_headers(text: str) -> dict[str, str]:
    """Return header fields, as `read_pairs` does, that both HTTP and gRPC can send.

    Raises:
        ValueError: They cannot; the message has nothing of them.
    """
    pairs = read_pairs(text)
    for name, value in pairs.items():
        if _FIELD_NAME.fullmatch(name) is None or not (value.isascii() and value.isprintable()):
            message = "headers: names of letters, digits and _.- are expected, and values in ASCII"
            raise ValueError(message)
    return pairs


SAMPLERS: Final[tuple[str, ...]] = get_args(Sampler)
