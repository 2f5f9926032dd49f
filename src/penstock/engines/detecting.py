"""Which kind of server one is, by what it says of itself. Pure."""

from collections.abc import Callable

from penstock.engines.registry import ENGINES

_MODELS = "/v1/models"
_LIVE = "/live"
_METADATA = "/v1/metadata"
_ABOUT = "/v2"


def detect_provider(read: Callable[[str], object]) -> str | None:
    """Return the provider of a server; None when it does not show.

    Args:
        read: Returns what a GET of a path answers, as JSON decoded; None where that is no success.
            Nothing is asked for that would change something.
    """
    if isinstance(read(_METADATA), dict):
        return "nim"
    models = read(_MODELS)
    data = models.get("data") if isinstance(models, dict) else None
    if not isinstance(data, list):
        about = read(_ABOUT)
        return "triton" if isinstance(about, dict) and about.get("name") == "triton" else None
    owners = [each.get("owned_by") for each in data if isinstance(each, dict)]
    found = [each.name for each in ENGINES.values() if each.owned_by and each.owned_by in owners]
    if found == ["dynamo"] and read(_LIVE) is None:
        return None  # NVIDIA's other services call themselves the same
    return found[0] if len(found) == 1 else None
