"""The configuration that `penstock dev` writes when the user has none of their own."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MARKER = "# Written by `penstock dev`."
_HEAD = (
    f"{MARKER} Delete this line to keep your own changes: the file is left alone then.\n"
    "# Check a change with `penstock config check`; a running instance picks it up by itself.\n"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """One upstream and the models that callers reach on it."""

    name: str
    provider: str
    endpoints: tuple[str, ...]
    """`scheme://host:port[/prefix]`."""
    models: tuple[str, ...]
    """Each by the same name for callers and upstream."""
    forward_headers: tuple[str, ...] = ()


def render(servings: Sequence[Serving]) -> str:
    """Return penstock.yaml for one organization, one key and these upstreams.

    A model that several upstreams serve is reached on the first of them.
    """
    import yaml  # noqa: PLC0415  # start-up time of the other commands

    first = {model: serving for serving in reversed(servings) for model in serving.models}
    models = [model for serving in servings for model in serving.models if first[model] is serving]
    routes = [
        {"name": model, "upstream": first[model].name, "model": model}
        for model in dict.fromkeys(models)
    ]
    content: dict[str, Any] = {
        "version": 1,
        "organizations": [{"name": "dev"}],
        "projects": [{"name": "playground", "organization": "dev"}],
        "keys": [
            {"name": "dev-key", "project": "playground", "secret": "file:secrets/dev_api_key"},
        ],
        "upstreams": [_upstream(serving) for serving in servings],
        "routes": routes,
        "aliases": [{"name": route["name"], "route": route["name"]} for route in routes],
    }
    return _HEAD + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)


def _upstream(serving: Serving) -> dict[str, Any]:
    upstream: dict[str, Any] = {
        "name": serving.name,
        "provider": serving.provider,
        "endpoints": list(serving.endpoints),
    }
    if serving.forward_headers:
        upstream["forward_headers"] = list(serving.forward_headers)
    return upstream


def is_ours(path: Path) -> bool:
    """Tell whether `penstock dev` may write the file: it is absent, or begins with the marker.

    Raises:
        OSError: It is there but cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(len(MARKER.encode())) == MARKER.encode()
    except FileNotFoundError:
        return True
