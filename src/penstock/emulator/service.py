"""Which answer a request gets."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from penstock.emulator.answers import compose, error_script
from penstock.emulator.generation import (
    CHARACTERS_PER_TOKEN,
    BadBodyError,
    Operation,
    parse_body,
)
from penstock.emulator.kinds import (
    drained_path,
    health_paths,
    load_report,
    metrics_path,
    metrics_text,
)
from penstock.emulator.kv_cache import KvCache
from penstock.emulator.media import PATHS as MEDIA_PATHS
from penstock.emulator.media import answer_media
from penstock.emulator.oip import PREFIX as OIP_PREFIX
from penstock.emulator.oip import answer_oip
from penstock.emulator.operations import IS_SLEEPING, Operations
from penstock.emulator.overlay import BadHeaderError, Headers, overlay
from penstock.emulator.script import Script, fixed_script
from penstock.emulator.settings import EmulatorSettings
from penstock.emulator.statistics import Statistics
from penstock.emulator.streams import CREATED
from penstock.emulator.wire import encode_json, plain_head

if TYPE_CHECKING:
    from penstock.emulator.kv_events import KvEvents

CACHE_LIMIT_BYTES = 16 * 1024 * 1024
"""Of the answers kept, bodies they answer included. A full cache is emptied: benchmarks repeat
few requests, and tests few enough."""
CACHED_BODY_LIMIT_BYTES = 16 * 1024

_OPERATIONS: dict[bytes, Operation] = {
    b"/v1/chat/completions": "chat",
    b"/v1/completions": "completions",
    b"/v1/embeddings": "embeddings",
    b"/v1/messages": "messages",
    b"/v1/messages/count_tokens": "count_tokens",
    b"/v1/responses": "responses",
}
_TTFT, _CACHED = b"x-emulator-ttft-ms", b"x-emulator-cached-tokens"
_MODELS = b"/v1/models"
_STATS = b"/emulator/stats"
_RESET = b"/emulator/reset"
_FORGETTING = (b"/reset_prefix_cache", b"/flush_cache")
_POSTS = dict.fromkeys((*_OPERATIONS, *MEDIA_PATHS, _RESET), b"POST")

_Key = tuple[bytes, bytes, Headers]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A script, with the bytes of the whole answer when it is one write."""

    script: Script
    whole: bytes | None


class Service:
    """Finds the answer to each request.

    Args:
        settings: How to answer requests that do not say otherwise.
        statistics: What `GET /emulator/stats` reports.
    """

    def __init__(self, settings: EmulatorSettings, statistics: Statistics) -> None:
        """See the class."""
        self.settings = settings
        self.statistics = statistics
        self._operations = Operations(settings)
        self.kv_events: KvEvents | None = None
        """Told what is asked, if so."""
        self._kv_cache: KvCache | None = None
        """What `cached_tokens` are told from, if so."""
        if settings.prefix_cache:
            self._kv_cache = KvCache(settings.kv_blocks, tells_salts=False)
        self._gets = self._list_gets()
        self._drained_count = 0
        self._cache: dict[_Key, Prepared] = {}
        self._cache_bytes = 0

    def answer(self, method: bytes, target: bytes, headers: Headers, body: bytes) -> Prepared:
        """Return the answer to a request.

        Args:
            method: In capitals.
            target: As sent, query included.
            headers: The `x-emulator-*` ones.
            body: The whole of it.
        """
        if method == b"POST":
            headers = self._read_prompt(headers, body)
            prepared = self._cache.get((target, body, headers))
            if prepared is not None:
                return prepared
        path = target.partition(b"?")[0]
        operated = self._operations.answer(method, path, body)
        if operated is not None:
            self._look_again()
            if path in _FORGETTING:
                self._forget_prompts()
            return Prepared(operated, operated.find_whole())
        operation = _OPERATIONS.get(path)
        if operation is not None and method == b"POST":
            return self._answer_operation(operation, target, headers, body)
        if path in MEDIA_PATHS and method == b"POST":
            script = answer_media(self.settings, path, headers, body)
        elif path.startswith(OIP_PREFIX):
            script = answer_oip(self.settings, method, path, headers, body)
        else:
            script = self._answer_other(method, path)
        if method == b"HEAD":
            script = fixed_script(script.head, b"")
        return Prepared(script, script.find_whole())

    def report_load(self, form: bytes) -> bytes:
        """Return the header line in which an answer says how busy it is, if its kind has one."""
        settings, active_count = self.settings, self.statistics.active_count
        return load_report(settings.kind, form, active_count, settings.batch)

    def _read_prompt(self, headers: Headers, body: bytes) -> Headers:
        """Take in a prompt; return the headers by which its request is answered."""
        if self.kv_events is not None:
            self.kv_events.read(body)
        cache = self._kv_cache
        if cache is None:
            return headers
        cache.read(body)
        settings, names = self.settings, {name for name, _ in headers}
        late = settings.prefill_ms_per_1k_tokens
        if late and _TTFT not in names:
            new_tokens = max(len(body) // CHARACTERS_PER_TOKEN - cache.known_tokens, 0)
            ttft_ms = round(settings.ttft_ms + late * new_tokens / 1000)
            headers = (*headers, (_TTFT, b"%d" % ttft_ms))
        if _CACHED not in names:
            headers = (*headers, (_CACHED, b"%d" % cache.known_tokens))
        return headers

    def _forget_prompts(self) -> None:
        if self.kv_events is not None:
            self.kv_events.clear()
        if self._kv_cache is not None:
            self._kv_cache.clear()

    def _look_again(self) -> None:
        """Answer from now on as an operator wants: with other models, or adapters."""
        models = self._operations.models
        self.settings = msgspec.structs.replace(self.settings, models=models)
        self._gets = self._list_gets()
        self._cache.clear()
        self._cache_bytes = 0

    def _answer_operation(
        self, operation: Operation, target: bytes, headers: Headers, body: bytes
    ) -> Prepared:
        try:
            behavior = overlay(self.settings, headers)
            generation = parse_body(operation, body)
        except (BadHeaderError, BadBodyError) as error:
            return self._keep((target, body, headers), self._error(400, str(error)))
        adapter = self._operations.find_adapter(generation.model)
        refused = None if adapter is None else self._operations.ask(adapter)
        if adapter is None and not self.settings.serves(generation.model):
            refused = self._unknown_model(generation.model)
        script = refused or compose(generation, behavior, self.settings.embedding_dimensions)
        if adapter is not None:  # each is counted
            return Prepared(script, script.find_whole())
        return self._keep((target, body, headers), script)

    def _keep(self, key: _Key, script: Script) -> Prepared:
        prepared = Prepared(script, script.find_whole())
        target, body, headers = key
        if len(body) <= CACHED_BODY_LIMIT_BYTES:
            size = 1024 + len(body) + len(target) + len(prepared.whole or b"")
            size += sum(len(name) + len(value) for name, value in headers)
            if self._cache_bytes + size > CACHE_LIMIT_BYTES:
                self._cache.clear()
                self._cache_bytes = 0
            self._cache[key] = prepared
            self._cache_bytes += size
        return prepared

    def _answer_other(self, method: bytes, path: bytes) -> Script:
        get = self._gets.get(path)
        if get is None and path.startswith(_MODELS + b"/"):
            name = path[len(_MODELS) + 1 :].decode("latin-1")
            get = partial(self._describe_model, name)
        allowed = b"GET" if get is not None else _POSTS.get(path)
        if allowed is None:
            return self._error(404, "no such path")
        if method != allowed:
            return self._error(405, "no such method here", extra=(b"allow: " + allowed,))
        if get is not None:
            return get()
        self.statistics.reset()
        self._forget_prompts()
        return _OK

    def _list_gets(self) -> dict[bytes, Callable[[], Script]]:
        """Return what can be read, by path; some of it depends on which kind of server it plays."""
        kind, names = self.settings.kind, self.settings.model_names()
        gets: dict[bytes, Callable[[], Script]] = {
            _STATS: lambda: _json_script(self.statistics.report()),
            _MODELS: lambda: _json_script({"object": "list", "data": self._list_models()}),
            IS_SLEEPING: lambda: _json_script({"is_sleeping": self._operations.is_sleeping}),
        }
        gets |= dict.fromkeys(health_paths(kind, names), lambda: _OK)
        metrics, drained = metrics_path(kind), drained_path(kind)
        gets |= {} if metrics is None else {metrics: self._describe_load}
        gets |= {} if drained is None else {drained: self._drain}
        return gets

    def _list_models(self) -> list[dict[str, object]]:
        adapters = self._operations.list_adapters()
        return [
            *map(_model, self.settings.model_names()),
            *(_card(name) | members for name, members in adapters.items()),
        ]

    def _describe_model(self, name: str) -> Script:
        if not self.settings.serves(name):
            return self._unknown_model(name)
        return _json_script(_model(name))

    def _describe_load(self) -> Script:
        kind, active_count = self.settings.kind, self.statistics.active_count
        text = metrics_text(kind, active_count, self.settings.batch)
        if kind == "vllm":
            text += self._operations.describe_adapters(active_count)
        return fixed_script(plain_head(200, len(text), b"text/plain; version=0.0.4"), text)

    def _drain(self) -> Script:
        """Answer an entry for each request since somebody read them last."""
        first, self._drained_count = self._drained_count, self.statistics.request_count
        return _json_script([{"iter": number} for number in range(first, self._drained_count)])

    def _unknown_model(self, name: str) -> Script:
        return self._error(404, f"the model {name} does not exist", "model_not_found")

    def _error(
        self, status: int, message: str, code: str | None = None, extra: tuple[bytes, ...] = ()
    ) -> Script:
        return error_script(self.settings.kind, status, message, code, extra)


def _json_script(payload: object) -> Script:
    body = encode_json(payload)
    return fixed_script(plain_head(200, len(body)), body)


_OK = _json_script({"status": "ok"})


def _card(name: str) -> dict[str, object]:
    return {
        "id": name,
        "object": "model",
        "created": CREATED,
        "owned_by": "penstock-emulator",
    }


def _model(name: str) -> dict[str, object]:
    return _card(name) | {"max_model_len": 131_072}
