"""Whether there is a collector, as settings or the environment say."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from penstock.kit.clock import Clock
from penstock.kit.secrets import SecretUnavailableError
from penstock.node import log_events
from penstock.node.errors import SETTINGS_INVALID, AgentError
from penstock.node.telemetry.settings import OtlpSettings, read_environment

if TYPE_CHECKING:
    from penstock.node.telemetry.push import Families
    from penstock.node.telemetry.setup import Telemetry


def connect_telemetry(
    settings: OtlpSettings | None,
    environment: Mapping[str, str],
    node_id: str,
    families: "Families",
    clock: Clock,
) -> "Telemetry | None":
    """Return what sends to the collector, and connects when it first does; None without one.

    The environment may mean others, so what is wrong there is logged, and nothing is sent.

    Args:
        settings: Where it is; as the environment says when None.
        environment: Variables by name.
        node_id: The node's id.
        families: Returns all metrics.
        clock: Tells the time.

    Raises:
        AgentError: Settings name one, and what it takes is not there or not good.
    """
    why: object
    try:
        found = settings or read_environment(environment)
        if found is None:
            return None
        from penstock.node.telemetry.setup import Telemetry  # noqa: PLC0415 - only where wanted

        return Telemetry(found, node_id, families, clock)
    except ImportError:
        why = "gRPC: install penstock[otlp]"
    except (ValueError, OSError, SecretUnavailableError) as error:
        why = error
    if settings is not None:
        raise AgentError(SETTINGS_INVALID, f"bad settings: otlp: {why}")
    log_events.TELEMETRY_OFF.log(why=str(why))
    return None
