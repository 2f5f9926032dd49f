"""Penstock's own emulator."""

from penstock.engines.model import OVERLOADED, Engine
from penstock.engines.vllm import DEVELOPMENT, LORA

EMULATOR = Engine(
    name="emulator",
    title="Penstock's own emulator, for tests and trials",
    owned_by="penstock-emulator",
    overloaded_statuses=OVERLOADED | {529},
    speaks_messages=True,
    speaks_responses=True,
    errors="any of the others', by its settings",
    speaks_oip=True,
    usage_in_every_chunk=True,
    operations=(*DEVELOPMENT, *LORA),
    cancels="closing the connection, at once",
)
