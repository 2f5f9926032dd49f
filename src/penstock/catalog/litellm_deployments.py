"""Reads the entries of LiteLLM's `model_list`."""

import re
from dataclasses import dataclass, field

from penstock.catalog.errors import quoted
from penstock.catalog.litellm_model import Deployment, NoteKind, Notes, Place, Variables
from penstock.catalog.litellm_providers import (
    AZURE,
    OTHER_PROTOCOLS,
    PROVIDERS,
    LitellmProvider,
    split_model,
)
from penstock.catalog.litellm_settings import (
    note_members,
    note_model_info,
    note_parameters,
)
from penstock.catalog.rules import MAX_TIMEOUT_MS, NAME, parse_endpoint
from penstock.contract.snapshot import Endpoint

LOST, CHANGED = NoteKind.LOST, NoteKind.CHANGED

REFERENCE = "os.environ/"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
MAX_SHARE = 1_000_000_000
"""Weights from here on are taken for mistakes."""
_MODES = {"chat", "completion", "embedding"}
_OPERATION = re.compile(r"(?:/chat/completions|/completions|/embeddings)/?$")
_VERSION = re.compile(r"/v1/?$")
_AZURE_PATH = re.compile(r"/openai(?:/.*)?$")
_STAND_INS = {"none", "null", "empty", "dummy", "fake", "fake-key", "no-key", "na", "n/a", "-"}
"""What people write as the key of an engine that asks for none."""
_CARRIED = {
    "model", "api_base", "base_url", "api_key", "timeout", "custom_llm_provider",
    "litellm_credential_name", "weight",
}  # fmt: skip


@dataclass(slots=True)
class Credentials:
    """Turns keys into references, and hands out names for those that stand in the file."""

    notes: Notes
    names: dict[str, str] = field(default_factory=dict)
    """Variable that was made for a key that stands in the file."""
    used: set[str] = field(default_factory=set)
    """All variables that are referred to."""

    def reference(self, place: Place, wanted: str, *, remedy: str = "") -> str:
        """Return the reference to a secret; the secret itself goes nowhere.

        Args:
            place: The value, a reference of LiteLLM's or the secret.
            wanted: What the variable of a secret that stands in the file is called.
            remedy: What to set the variable to, if not to the secret that stands there.
        """
        text = str(place.node.value)
        variable = text.removeprefix(REFERENCE)
        if variable != text and _VARIABLE.fullmatch(variable):
            return self.variable(variable)
        name = self.names.get(text)
        if name is None:
            name = _free(re.sub(r"[^A-Z0-9]+", "_", wanted.upper()).strip("_"), self.used)
            self.names[text] = name
        if variable == text:
            problem = f"the key stands here in clear and is not copied; set {name} to "
            problem += remedy or "it in the environment of the agent"
        else:
            problem = f"no variable can be called so; set {name} to its value"
        self.notes.add(CHANGED, place, problem)
        return self.variable(name)

    def variable(self, name: str) -> str:
        """Return the reference to a variable."""
        self.used.add(name)
        return f"env:{name}"


class _NotCarriedError(Exception):
    """An entry of `model_list` cannot be carried at all."""

    def __init__(self, place: Place, problem: str) -> None:
        super().__init__(problem)
        self.place = place
        self.problem = problem


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentReader:
    """Reads entries of `model_list`.

    Args:
        notes: Collects what is not carried.
        credentials: Keeps the keys.
        shared: `credential_list` by name: what `litellm_credential_name` stands for.
        variables: Known environment variables, for addresses and names of models.
        timeout: The time limit of those that have none of their own.
    """

    notes: Notes
    credentials: Credentials
    shared: dict[str, Place]
    variables: Variables
    timeout: Place | None

    def read(self, entry: Place) -> Deployment | None:
        """Return what an entry says, or None, with a note, if it cannot be carried at all."""
        try:
            return self._read(entry)
        except _NotCarriedError as error:
            self.notes.add(LOST, error.place, error.problem)
            return None

    def _read(self, entry: Place) -> Deployment:
        name, parameters = entry.member("model_name"), entry.member("litellm_params")
        if name is None or not name.text or parameters is None or not parameters.node.fields:
            problem = "has no model_name or no litellm_params; add what is missing"
            raise _NotCarriedError(entry, problem)
        if "*" in name.text:
            problem = "names many models by a wildcard; write an entry for each one"
            raise _NotCarriedError(name, problem)
        note_parameters(parameters, _CARRIED, self.notes)
        information = entry.member("model_info")
        if information is not None:
            note_model_info(information, self.notes)
            mode = information.member("mode")
            if mode is not None and mode.text not in _MODES:
                problem = "only chat, completions and embeddings are relayed; keep LiteLLM for it"
                raise _NotCarriedError(mode, problem)
        note_members(entry, {}, {"model_name", "litellm_params", "model_info"}, self.notes)
        return self._deployment(entry, name.text, parameters)

    def _deployment(self, entry: Place, alias: str, parameters: Place) -> Deployment:
        shared = parameters.member("litellm_credential_name")
        if shared is not None and shared.text not in self.shared:
            problem = "names nothing in credential_list; if it is on LiteLLM's pages, write it here"
            raise _NotCarriedError(shared, problem)
        place = parameters.member("model")
        text = self._value(place)
        if place is None or text is None:
            raise _NotCarriedError(place or parameters, _without("model"))
        named = self._value(self._find(parameters, "custom_llm_provider"))
        prefix, model = split_model(text, named)
        base = self._find(parameters, "api_base", "base_url")
        provider = self._provider(place, prefix, has_base=base is not None)
        if NAME.fullmatch(model) is None:
            problem = "the model's name has characters that cannot be carried; serve it by another"
            raise _NotCarriedError(place, problem)
        endpoint = self._endpoint(parameters, base, provider, is_azure=prefix == AZURE)
        is_own_place = base is None and provider.key_variable is not None
        upstream_name = str(prefix) if is_own_place else alias
        return Deployment(
            place=entry,
            alias=alias,
            upstream_name=upstream_name,
            provider=provider.provider,
            endpoint=endpoint,
            credential=self._credential(parameters, provider, alias, base),
            timeout_ms=self._timeout_ms(parameters.member("timeout") or self.timeout),
            model=model,
            weight=self._weight(parameters.member("weight")),
        )

    def _provider(self, place: Place, prefix: str | None, *, has_base: bool) -> LitellmProvider:
        if prefix in OTHER_PROTOCOLS:
            problem = (
                f"{prefix} is not reached by OpenAI's /v1 operations with a bearer token; if it "
                "has an address for them, name that as an upstream by hand"
            )
            raise _NotCarriedError(place, problem)
        provider = PROVIDERS.get(prefix or "")
        if provider is not None:
            if provider.remark:
                self.notes.add(CHANGED, place, f"{prefix} {provider.remark}")
            return provider
        if not has_base:
            problem = (
                f"the provider of {quoted(place.text or '')} is not known to this import; name its "
                "address as an upstream by hand"
            )
            raise _NotCarriedError(place, problem)
        problem = "the provider is not known and is taken for an OpenAI-compatible one; look at it"
        self.notes.add(CHANGED, place, problem)
        return LitellmProvider()

    def _endpoint(
        self, parameters: Place, base: Place | None, provider: LitellmProvider, *, is_azure: bool
    ) -> str:
        if base is None and provider.base is not None:
            return provider.base
        url = self._value(base)
        if base is None or url is None:
            raise _NotCarriedError(base or parameters, _without("api_base"))
        url, is_versioned = _strip_path(url.strip(), is_azure=is_azure)
        try:
            endpoint = parse_endpoint(url)
        except ValueError as error:
            raise _NotCarriedError(base, str(error)) from None
        if not is_versioned:
            problem = (
                "does not end in /v1, which Penstock's paths begin with; look whether the upstream "
                f"answers under {endpoint.path_prefix}/v1"
            )
            self.notes.add(CHANGED, base, problem)
        return _format_endpoint(endpoint)

    def _credential(
        self, parameters: Place, provider: LitellmProvider, alias: str, base: Place | None
    ) -> str | None:
        key = self._find(parameters, "api_key")
        if key is None:
            is_needed = provider.key_variable is not None and (
                base is None or provider is PROVIDERS[AZURE]
            )
            return self.credentials.variable(str(provider.key_variable)) if is_needed else None
        text = str(key.node.value).strip()
        if text.lower() in _STAND_INS or not text:
            return None
        if isinstance(key.node.value, dict | list) or text.startswith("oidc/"):
            problem = "is no API key; make one, and name it as the credential of the upstream"
            self.notes.add(LOST, key, problem)
            return None
        return self.credentials.reference(key, f"{alias}_API_KEY")

    def _timeout_ms(self, place: Place | None) -> int | None:
        if place is None:
            return None
        value = place.node.value
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            problem = "is no number of seconds; set timeouts of the upstream"
            self.notes.add(LOST, place, problem)
            return None
        milliseconds = max(round(min(value, MAX_TIMEOUT_MS) * 1000), 1)
        if milliseconds > MAX_TIMEOUT_MS:
            self.notes.add(CHANGED, place, "is longer than a day; a day is taken")
        return min(milliseconds, MAX_TIMEOUT_MS)

    def _weight(self, place: Place | None) -> float:
        if place is None:
            return 1
        value = place.node.value
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not 0 <= float(str(value)) < MAX_SHARE:
            self.notes.add(LOST, place, "is no weight; set weights of the route's deployments")
            return 1
        return float(str(value))

    def _find(self, parameters: Place, *names: str) -> Place | None:
        """Return a parameter, its own or that of the shared credential that it names."""
        shared = parameters.member("litellm_credential_name")
        places = [parameters]
        if shared is not None and shared.text in self.shared:
            places.append(self.shared[shared.text])
        found = (place.member(name) for place in places for name in names)
        return next((member for member in found if member is not None), None)

    def _value(self, place: Place | None) -> str | None:
        """Return a text that is no secret, looked up where it refers to a variable."""
        if place is None or not place.text:
            return None
        if place.text.startswith(REFERENCE):
            return self.variables.get(place.text.removeprefix(REFERENCE)) or None
        return place.text


def _without(name: str) -> str:
    return (
        f"{name} is missing, or in a variable that is not set here; write it into the file or "
        "set the variable, and import again"
    )


def _strip_path(url: str, *, is_azure: bool) -> tuple[str, bool]:
    """Return what comes before `/v1` in an address, and whether it had one."""
    url = _OPERATION.sub("", url)
    if is_azure:
        return _AZURE_PATH.sub("", url).rstrip("/") + "/openai", True
    stripped = _VERSION.sub("", url)
    return stripped, stripped != url


def _format_endpoint(endpoint: Endpoint) -> str:
    host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
    is_default = endpoint.port == {"http": 80, "https": 443}.get(endpoint.scheme)
    port = "" if is_default else f":{endpoint.port}"
    return f"{endpoint.scheme}://{host}{port}{endpoint.path_prefix}"


def _free(wanted: str, taken: set[str]) -> str:
    """Return a variable's name that is not taken."""
    wanted = wanted if wanted and not wanted[0].isdigit() else f"KEY_{wanted}"
    number, name = 1, wanted
    while name in taken:
        number += 1
        name = f"{wanted}_{number}"
    return name
