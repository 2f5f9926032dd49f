"""Which way usage goes, as the node's settings say."""

from importlib.util import find_spec

from penstock.kit.clock import Clock
from penstock.kit.secrets import SecretUnavailableError, resolve_secret
from penstock.node.delivery import Connection, ControlPlane
from penstock.node.errors import SETTINGS_INVALID, AgentError
from penstock.node.layout import Layout
from penstock.node.settings import AgentSettings


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
    if settings.nats_url is None:
        return direct
    if find_spec("nats") is None:
        message = "bad settings: nats_url: install penstock[nats]"
        raise AgentError(SETTINGS_INVALID, message)
    if "@" in settings.nats_url:
        message = "bad settings: nats_url: a password belongs into nats_password"
        raise AgentError(SETTINGS_INVALID, message)
    password = None
    if settings.nats_password is not None:
        try:
            password = resolve_secret(settings.nats_password)
        except SecretUnavailableError as error:
            raise AgentError(SETTINGS_INVALID, f"bad settings: nats_password: {error}") from None
    from penstock.node.transport.nats import NatsStore  # noqa: PLC0415 - only with the extra

    return NatsStore(
        settings.nats_url,
        password,
        node_id=node_id,
        token_path=layout.node_token,
        direct=direct,
        clock=clock,
    )
