"""Endpoints that were found under a name are asked by it, over TLS."""

import ssl
from pathlib import Path

import msgspec
import trustme
from tests.fakes.http_rig import request
from tests.fakes.raw_http import ask
from tests.fakes.recording_engine import running_engine
from tests.fakes.tls_proxy import tls_proxy
from tests.fakes.worker_process import make_snapshot, running_worker

from penstock.contract.snapshot import Endpoint, Snapshot
from penstock.contract.snapshot_store import found_record

NAME = "engine.test"
SOURCE = "dns://engine.test:8000?scheme=https"


def _snapshot(ca_file: Path) -> Snapshot:
    snapshot = make_snapshot([])
    [upstream] = snapshot.upstreams
    changed = msgspec.structs.replace(upstream, discover=SOURCE, tls_ca_file=str(ca_file))
    return msgspec.structs.replace(snapshot, upstreams=(changed,))


def test_a_found_address_is_asked_by_its_name(tmp_path: Path) -> None:
    """Certificate and `Host` have the name; without it, the same certificate is not trusted."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert(NAME).configure_cert(context)
    snapshot = _snapshot(tmp_path / "ca.pem")
    with running_engine() as engine, tls_proxy(context, engine.port) as port:
        named = Endpoint("https", "127.0.0.1", port, server_name=NAME)
        found = dict([found_record(SOURCE, (named,))])
        with running_worker(tmp_path / "named", [], snapshot=snapshot, fed=found) as worker:
            assert ask(worker.port, request()).status == 200
            assert engine.seen[0].header["host"] == f"{NAME}:{port}"
        bare = dict([found_record(SOURCE, (Endpoint("https", "127.0.0.1", port),))])
        with running_worker(tmp_path / "bare", [], snapshot=snapshot, fed=bare) as worker:
            answer = ask(worker.port, request())
            assert (answer.status, b"connect_failed" in answer.body) == (503, True)
        with running_worker(tmp_path / "none", [], snapshot=snapshot) as worker:
            answer = ask(worker.port, request())
            assert (answer.status, b"upstream:unusable" in answer.body) == (503, True)
    assert len(engine.seen) == 1
