"""What operators have the emulator do: adapters and models come and go, it sleeps and wakes up."""

import time
from collections.abc import Mapping
from typing import Any

import msgspec

from penstock.emulator.answers import error_script
from penstock.emulator.kinds import operation_paths
from penstock.emulator.script import Script, fixed_script
from penstock.emulator.settings import EmulatorSettings
from penstock.emulator.wire import encode_json, plain_head

IS_SLEEPING = b"/is_sleeping"
_REPOSITORY = b"/v2/repository/"
_SLEEPS = {"sleep": True, "wake_up": False}


class Operations:
    """The state that operators change: which models and adapters are there, whether it sleeps.

    Args:
        settings: What it starts with.
    """

    def __init__(self, settings: EmulatorSettings) -> None:
        """See the class."""
        self._settings = settings
        self._paths = operation_paths(settings.kind)
        self._repository = settings.model_names()
        self._unloaded: set[str] = set()
        self._asked: set[str] = set()
        self.adapters = {name: name for name in settings.adapter_names()}
        """Paths of the adapters that are loaded, by their names."""
        self.is_sleeping = False

    @property
    def models(self) -> str:
        """The models that are loaded, as settings have them."""
        if self._settings.models == "*":
            return "*"
        return ",".join(name for name in self._repository if name not in self._unloaded)

    def find_adapter(self, model: str) -> str | None:
        """Return which adapter a request for a model means; None when it means none.

        SGLang's requests name model and adapter; of others' the adapter is the model.
        """
        if self._settings.kind == "sglang":
            base, colon, name = model.partition(":")
            return name if colon and self._settings.serves(base) else None
        return model if model in self.adapters else None

    def ask(self, adapter: str) -> Script | None:
        """Take note that an adapter is asked; return the answer if it is not there."""
        if adapter in self.adapters:
            self._asked.add(adapter)
            return None
        loaded = ", ".join(self.adapters)
        fault = f"The following requested LoRA adapters are not loaded: {adapter}\n({loaded})"
        return self._error(400, fault)

    def describe_adapters(self, active_count: int) -> bytes:
        """Return vLLM's metric of adapters; those asked since nothing was under way are running."""
        if not active_count:
            self._asked.clear()
        running = ",".join(sorted(self._asked))
        return (
            f'vllm:lora_requests_info{{max_lora="{self._settings.adapter_limit}",'
            f'running_lora_adapters="{running}",waiting_lora_adapters=""}} {time.time()}\n'
        ).encode()

    def list_adapters(self) -> dict[str, dict[str, object]]:
        """Return what a list of models says of adapters alone, by their names."""
        parent = next(iter(self._settings.model_names()), "")
        return {name: {"root": path, "parent": parent} for name, path in self.adapters.items()}

    def answer(self, method: bytes, path: bytes, body: bytes) -> Script | None:
        """Do what an operator wants; None when the path is none of theirs."""
        if path.startswith(_REPOSITORY) and method == b"POST":
            return self._serve_repository(path[len(_REPOSITORY) :].decode("latin-1"))
        name = self._paths.get(path)
        if name is None:
            return None
        if method != b"POST":
            return self._error(405, "no such method here")
        if name in _SLEEPS:
            self.is_sleeping = _SLEEPS[name]
        elif name.endswith("_lora_adapter"):
            return self._serve_adapter(name, body)
        return fixed_script(plain_head(200, 0), b"")

    # Adapters

    def _serve_adapter(self, operation: str, body: bytes) -> Script:
        members = _read(body)
        name, path = members.get("lora_name", ""), members.get("lora_path", "")
        is_load = operation.startswith("load")
        if not name or (is_load and not path):
            lacks = "'lora_name' and 'lora_path' are" if is_load else "'lora_name' is"
            return self._refuse_adapter(400, f"{lacks} needed.")
        fault = self._find_load_fault(name) if is_load else self._find_unload_fault(name)
        if fault is not None:
            return self._refuse_adapter(*fault)
        if is_load:
            self.adapters[name] = path
        else:
            del self.adapters[name]
        if self._settings.kind == "sglang":
            return _json({"success": True, "loaded_adapters": self.adapters})
        done = "added" if is_load else "removed"
        text = f"Success: LoRA adapter '{name}' {done} successfully.".encode()
        delay_ms = self._settings.adapter_load_ms if is_load else 0.0
        return fixed_script(plain_head(200, len(text), b"text/plain"), text, delay_ms)

    def _find_load_fault(self, name: str) -> tuple[int, str] | None:
        is_sglang = self._settings.kind == "sglang"
        if name in self.adapters:
            fault = f"The lora adapter '{name}' has already been loaded."
            return 400, f"LoRA with name {name} already exists." if is_sglang else fault
        most = self._settings.adapter_limit
        if len(self.adapters) < most:
            return None
        if is_sglang:
            return 400, f"Maximum number of loaded LoRA adapters is {most}. Unload some first."
        return 500, "No free adapter slots."

    def _find_unload_fault(self, name: str) -> tuple[int, str] | None:
        if name in self.adapters:
            return None
        if self._settings.kind == "sglang":
            return 400, f"LoRA with name {name} does not exist."
        return 404, f"The lora adapter '{name}' cannot be found."

    def _refuse_adapter(self, status: int, message: str) -> Script:
        if self._settings.kind == "sglang":
            return _json({"success": False, "error_message": message}, status)
        return self._error(status, message)

    # Triton's repository of models

    def _serve_repository(self, path: str) -> Script:
        if path == "index":
            return _json([self._describe(name) for name in self._repository])
        _, _, rest = path.partition("models/")
        name, _, verb = rest.rpartition("/")
        if name not in self._repository or verb not in {"load", "unload"}:
            message = f"failed to {verb or 'load'} '{name}', no such model in the repository"
            return error_script("triton", 400, message)
        if verb == "load":
            self._unloaded.discard(name)
        else:
            self._unloaded.add(name)
        return _json({})

    def _describe(self, name: str) -> dict[str, str]:
        if name in self._unloaded:
            return {"name": name, "version": "1", "state": "UNAVAILABLE", "reason": "unloaded"}
        return {"name": name, "version": "1", "state": "READY", "reason": ""}

    def _error(self, status: int, message: str) -> Script:
        return error_script(self._settings.kind, status, message)


def _read(body: bytes) -> Mapping[str, Any]:
    try:
        return msgspec.json.decode(body, type=dict[str, str])
    except msgspec.DecodeError:
        return {}


def _json(payload: object, status: int = 200) -> Script:
    body = encode_json(payload)
    return fixed_script(plain_head(status, len(body)), body)
