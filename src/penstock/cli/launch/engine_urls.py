"""Engines that the user names: their URLs put in form, and what they say they serve."""

from penstock.catalog.rules import NAME, parse_endpoint
from penstock.cli.errors import BAD_OPTION, ENGINE_UNREACHABLE, CommandError
from penstock.kit.tls import verify_for

_URL_FORM = "Give it as http://HOST:PORT or https://HOST:PORT."
_TIMEOUT_S = 5.0
_MOST_MODELS = 1000


def normalize(url: str) -> str:
    """Return `scheme://host:port[/prefix]`, without the `/v1` that people copy along.

    >>> normalize("http://localhost:8000/v1/")
    'http://localhost:8000'
    >>> normalize("https://llm.example/team-a")
    'https://llm.example:443/team-a'

    Raises:
        CommandError: It is no http or https URL, or has a user, query or fragment.
    """
    try:
        endpoint = parse_endpoint(url.rstrip("/").removesuffix("/v1"))
    except ValueError as error:
        # The URL is not repeated: it may hold a password.
        raise CommandError(BAD_OPTION, f"The URL of an --engine {error}.", _URL_FORM) from None
    return endpoint.url


def list_models(url: str) -> tuple[str, ...]:
    """Ask an engine what it serves.

    Args:
        url: As `normalize` returned it.

    Returns:
        The ids that `GET /v1/models` lists, in its order, at least one; those that cannot be a
        model's name here (a path, say) are left out.

    Raises:
        CommandError: It cannot be reached within 5 s, or its answer lists nothing.
    """
    import httpx  # noqa: PLC0415  # start-up time

    target = f"{url}/v1/models"
    try:
        # No proxy: the gateway itself connects to engines directly.
        verify = verify_for(target)
        answer = httpx.get(target, timeout=_TIMEOUT_S, trust_env=False, verify=verify)
        answer.raise_for_status()
        listed = answer.json()["data"]
        names = [str(entry["id"]) for entry in listed]
    except httpx.HTTPStatusError as error:
        code = error.response.status_code
        raise CommandError(ENGINE_UNREACHABLE, f"GET {target} answered {code}.") from None
    except httpx.HTTPError as error:
        reason = str(error) or type(error).__name__
        raise CommandError(ENGINE_UNREACHABLE, f"GET {target} failed: {reason}.") from None
    except (ValueError, KeyError, TypeError):
        detail = f"The answer of GET {target} is no list of models."
        raise CommandError(ENGINE_UNREACHABLE, detail) from None
    usable = [name for name in names if NAME.fullmatch(name)]
    if not usable:
        detail = f"GET {target} lists no model with a name that can be used (of {len(names)})."
        raise CommandError(ENGINE_UNREACHABLE, detail)
    return tuple(dict.fromkeys(usable[:_MOST_MODELS]))
