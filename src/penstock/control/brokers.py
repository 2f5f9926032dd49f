"""By way of which brokers usage comes, as the settings of the control plane say."""

from collections.abc import Iterator
from importlib.util import find_spec

from penstock.contract.kafka import client_options
from penstock.control.broker_usage import Broker, BrokerUsage
from penstock.control.errors import KAFKA_SETTING, NATS_SETTING
from penstock.control.kafka_usage import KafkaBroker
from penstock.control.nats_usage import NatsBroker
from penstock.control.settings import ControlSettings
from penstock.kit.errors import PenstockError
from penstock.kit.secrets import resolve_secret
from penstock.metering.intake import Take
from penstock.storage.scope import Scope


def create_broker_usages(
    settings: ControlSettings, node_token: bytes, take: Take
) -> list[BrokerUsage]:
    """Return what takes usage from each broker that the settings name; mostly that is none.

    Args:
        settings: They may name several: nodes change from one to the other one by one.
        node_token: What nodes prove themselves by.
        take: Stores a batch.

    Raises:
        PenstockError: `NATS_SETTING` or `KAFKA_SETTING`: what they name cannot be used.
        SecretUnavailableError: A broker's password cannot be read.
    """
    everybody = Scope.all_organizations()
    return [
        BrokerUsage(broker, node_token, lambda batch: take(batch, everybody))
        for broker in _brokers(settings)
    ]


def _brokers(settings: ControlSettings) -> Iterator[Broker]:
    if settings.nats_url is not None:
        if find_spec("nats") is None or "@" in settings.nats_url:
            raise PenstockError(NATS_SETTING)
        password = settings.nats_password
        yield NatsBroker(settings.nats_url, None if password is None else resolve_secret(password))
    if settings.kafka is not None:
        if find_spec("aiokafka") is None:
            raise PenstockError(KAFKA_SETTING)
        try:
            yield KafkaBroker(client_options(settings.kafka))
        except OSError as error:
            raise PenstockError(KAFKA_SETTING, str(error)) from None
