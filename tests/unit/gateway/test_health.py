"""When an endpoint is passed over: what the agent said of it, and what requests met there."""

from penstock.contract.node import NotReady
from penstock.contract.snapshot import Endpoint
from penstock.gateway.health import Health, Told
from penstock.gateway.limits import EJECT_AFTER, EJECTED_S

AT = Endpoint("http", "10.0.0.1", 8000, "/engine")


class Time:
    """Time that a test sets."""

    now_s = 100.0

    def __call__(self) -> float:
        """Return it."""
        return self.now_s


def test_failures_one_after_the_other_eject() -> None:
    """An endpoint is out after so many failures in a row; a whole answer between begins anew."""
    now = Time()
    health = Health(now)
    for _ in range(2):
        for _ in range(EJECT_AFTER - 1):
            health.failed()
        assert health.out_until_s <= now()
        health.succeeded()
    for _ in range(EJECT_AFTER):
        health.failed()
    assert health.out_until_s == now() + EJECTED_S


def test_one_request_tries_an_ejected_endpoint_out() -> None:
    """Once its time is over, one request keeps all others away until it is answered."""
    now = Time()
    health = Health(now)
    for _ in range(EJECT_AFTER):
        health.failed()
    now.now_s += EJECTED_S
    assert health.out_until_s <= now()
    health.asked()
    assert health.out_until_s > now()
    health.succeeded()
    assert health.out_until_s <= now()
    health.asked()
    assert health.out_until_s <= now()


def test_what_the_agent_says_ends_by_itself() -> None:
    """What was said is believed for its time, also of endpoints that come later; then it is not."""
    now = Time()
    told = Told(now)
    told.take(NotReady((("gpu", AT.url),), 15.0))
    health = Health(now)
    health.told(told.until_s("gpu", AT))
    assert health.out_until_s == now() + 15.0
    assert told.until_s("other", AT) == 0.0
    now.now_s += 15.0
    assert health.out_until_s <= now()
    told.take(NotReady((), 15.0))
    assert told.until_s("gpu", AT) == 0.0


def test_ready_does_not_undo_an_ejection() -> None:
    """An endpoint that says that it is ready, and breaks every answer off, stays out."""
    now = Time()
    health = Health(now)
    for _ in range(EJECT_AFTER):
        health.failed()
    health.told(0.0)
    assert health.out_until_s == now() + EJECTED_S
