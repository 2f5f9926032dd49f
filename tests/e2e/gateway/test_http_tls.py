"""TLS from certificate files."""

import os
import signal
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import trustme
from tests.fakes.http_rig import CHAT, Rig, as_engine_sees, chat, get, request, running_rig
from tests.fakes.raw_http import RawConnection

_authority = trustme.CA()


@pytest.fixture(scope="module")
def tls_rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """Start a worker with a certificate."""
    folder = tmp_path_factory.mktemp("tls")
    with running_rig(folder, **_certified(folder)) as rig:
        yield rig


def _certified(folder: Path) -> dict[str, str]:
    """Return settings of a worker with a certificate."""
    certificate = _authority.issue_cert("localhost")
    key, chain = folder / "key.pem", folder / "chain.pem"
    certificate.private_key_pem.write_to_path(str(key))
    for number, blob in enumerate(certificate.cert_chain_pems):
        blob.write_to_path(str(chain), append=number > 0)
    return {"tls_cert": str(chain), "tls_key": str(key)}


def _context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    _authority.configure_trust(context)
    return context


def _connect(rig: Rig, context: ssl.SSLContext | None = None) -> RawConnection:
    return RawConnection(rig.port, tls=context or _context())


def test_requests_are_served_over_tls(tls_rig: Rig) -> None:
    """Kept, pipelined and streamed requests work over TLS as without it."""
    tls_rig.engine.seen.clear()
    with _connect(tls_rig) as connection:
        connection.send(request() + get(b"/health/live"))
        assert [connection.read_answer().status for _ in range(2)] == [200, 200]
        connection.send(request(chat("x", stream=True)))
        assert connection.read_answer().body.endswith(b"data: [DONE]\n\n")
    assert tls_rig.bodies()[0] == as_engine_sees(CHAT)


def test_a_last_answer_ends_a_tls_connection(tls_rig: Rig) -> None:
    """Refused framing and `Connection: close` end a TLS connection behind a whole answer."""
    for content, status in (
        (request(CHAT, b"Connection: close"), 200),
        (request(CHAT, b"X : a") + request(), 400),
    ):
        with _connect(tls_rig) as connection:
            connection.send(content)
            answers = connection.read_answers()
        assert [(each.status, each.is_last) for each in answers] == [(status, True)]


def test_http_1_1_is_negotiated(tls_rig: Rig) -> None:
    """A caller that offers HTTP/2 first is told HTTP/1.1."""
    context = _context()
    context.set_alpn_protocols(["h2", "http/1.1"])
    with _connect(tls_rig, context) as connection:
        assert isinstance(connection.socket, ssl.SSLSocket)
        assert connection.socket.selected_alpn_protocol() == "http/1.1"
        assert connection.socket.version() in {"TLSv1.2", "TLSv1.3"}


def test_old_tls_is_refused(tls_rig: Rig) -> None:
    """Nothing below TLS 1.2 is spoken."""
    context = _context()
    context.set_ciphers("ALL:@SECLEVEL=0")  # else it is this side that will not
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError, match=r"alert|EOF"):
        _connect(tls_rig, context)


def test_plain_http_on_a_tls_port_harms_nothing(tls_rig: Rig) -> None:
    """What does not greet as TLS is dropped, and the next caller is served."""
    with RawConnection(tls_rig.port) as connection:
        connection.try_send(get(b"/health/live"))
        assert not connection.read_to_end().startswith(b"HTTP")
    with _connect(tls_rig) as connection:
        connection.send(get(b"/health/live"))
        assert connection.read_answer().status == 200


def test_who_knocks_and_says_nothing_does_not_keep_a_worker(tmp_path: Path) -> None:
    """A worker that is told to end waits for no greeting of TLS as long as it usually would."""
    with running_rig(tmp_path, **_certified(tmp_path)) as rig:
        worker = rig.worker
        os.kill(worker.pid, signal.SIGSTOP)
        with ExitStack() as knocking:
            for _ in range(20):  # some may be accepted before the signal is seen
                knocking.enter_context(RawConnection(rig.port))
            os.kill(worker.pid, signal.SIGTERM)
            os.kill(worker.pid, signal.SIGCONT)
            assert worker.process.wait(30) == 0  # usually that is 60 s


def test_the_private_key_is_in_no_log(tls_rig: Rig) -> None:
    """The worker's log names no part of its private key."""
    key: Path = tls_rig.worker.folder / "key.pem"
    lines = key.read_text().splitlines()[1:-1]
    log = tls_rig.worker.log.read_text()
    assert [line for line in lines if line in log] == []
