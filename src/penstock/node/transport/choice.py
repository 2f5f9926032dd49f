"""Which way usage goes, as the node's settings say."""

from importlib.util import find_spec

from penstock.contract.kafka import KafkaSettings, client_options
from penstock.kit.clock import Clock
from penstock.kit.secrets import SecretUnavailableError, resolve_secret
from penstock.node.delivery import Connection, ControlPlane
from penstock.node.errors import SETTINGS_INVALID, AgentError
from penstock.node.layout import Layout
from penstock.node.settings import AgentSettings
from penstock.node.transport.broker import Broker, BrokerStore
from penstock.node.transport.kafka import KafkaBroker
from penstock.node.transport.nats import NatsBroker


def connect_store(
    settings: AgentSettings, layout: Layout, clock: Clock, *, node_id: str
) -> Connection:
    """Return the usage store, which connects when it is first used.

    Args:
        settings: They name a broker, or none.
        layout: Where the node's token is.
        clock: Tells the time.
        node_id: The node's id.

    Raises:
        AgentError: There is a broker, and what it takes is not there.
    """
    direct = ControlPlane(settings.control_url, layout.node_token)
    try:
        broker = _broker(settings, node_id)
    except (ValueError, OSError, SecretUnavailableError) as error:
        raise AgentError(SETTINGS_INVALID, f"bad settings: {error}") from None
    if broker is None:
        return direct
    return BrokerStore(broker, token_path=layout.node_token, direct=direct, clock=clock)


def _broker(settings: AgentSettings, node_id: str) -> Broker | None:
    if settings.nats_url is not None:
        return _nats(settings.nats_url, settings.nats_password, node_id)
    if settings.kafka is not None:
        return _kafka(settings.kafka, node_id)
    return None


def _nats(url: str, password: str | None, node_id: str) -> NatsBroker:
    if find_spec("nats") is None:
        message = "nats_url: install penstock[nats]"
        raise ValueError(message)
    if "@" in url:
        message = "nats_url: a password belongs into nats_password"
        raise ValueError(message)
    return NatsBroker(url, None if password is None else resolve_secret(password), node_id=node_id)


def _kafka(settings: KafkaSettings, node_id: str) -> KafkaBroker:
    if find_spec("aiokafka") is None:
        message = "kafka: install penstock[kafka]"
        raise ValueError(message)
    return KafkaBroker(client_options(settings), node_id=node_id)
