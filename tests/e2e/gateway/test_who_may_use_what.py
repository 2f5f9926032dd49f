"""Grants, data policies, credentials of one's own and peppers, against a real worker."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.fakes.fake_agent import FakeAgent, running_agent
from tests.fakes.http_rig import CHAT, get, request
from tests.fakes.raw_http import Answer, ask
from tests.fakes.recording_engine import RecordingEngine, running_engine
from tests.fakes.worker_process import (
    KEY,
    PEPPER,
    WorkerProcess,
    make_snapshot,
    running_worker,
    write_snapshot,
)

from penstock.access.rules import create_key, key_mac
from penstock.contract.money import Price
from penstock.contract.node import Applied, Apply, Credentials, Hello, Rehashed, Stats
from penstock.contract.snapshot import (
    Alias,
    Choice,
    Deployment,
    Key,
    Policy,
    Route,
    SealedCredential,
    Snapshot,
    WrappedDek,
)
from penstock.contract.snapshot_store import (
    billed_record,
    grant_name,
    own_credential_record,
    policy_record,
    prices_record,
    sealed_record,
)

KEY_A, KEY_A2, KEY_B = create_key(), create_key(), create_key()
"""Of two projects of one organization, and of another organization."""
_ID = b"x-request-id: same"
_TOKENS = {"crd_p": "sk-platform-canary", "crd_a": "sk-a-canary", "crd_d": "sk-deployment-canary"}
_NEW_PEPPER = b"9e04d7b2a8613fc5570be91d42ac68f3d10e7b95"


def _snapshot(port: int, version: int = 1) -> Snapshot:
    plain = make_snapshot([port], version=version)
    sealed = msgspec.structs.replace(
        plain.upstreams[0], name="sealed", credential="credential:crd_p"
    )
    local = msgspec.structs.replace(plain.upstreams[0], region="eu-de", data_class="eu_only")
    return msgspec.structs.replace(
        plain,
        keys=(
            *plain.keys,
            Key("a", key_mac(PEPPER, KEY_A.encode()), "org-a", "prj-a", secret="sec-a"),
            Key("a2", key_mac(PEPPER, KEY_A2.encode()), "org-a", "prj-a2"),
            Key("b", key_mac(PEPPER, KEY_B.encode()), "org-b", "prj-b"),
        ),
        upstreams=(local, sealed),
        deployments=(
            *plain.deployments,
            Deployment("sealed", "sealed", "served-model"),
            Deployment("deployment", "sealed", "served-model", credential="credential:crd_d"),
        ),
        routes=(
            *plain.routes,
            Route("sealed", (Choice("sealed"),)),
            Route("deployment", (Choice("deployment"),)),
            Route("mixed", (Choice("sealed", 1000), Choice("main", 1))),
        ),
        aliases=(
            Alias("model-a", "main"),
            Alias("closed", "main", is_open=False),
            Alias("sealed", "sealed"),
            Alias("deployment", "deployment"),
            Alias("mixed", "mixed"),
        ),
    )


@dataclass
class Stage:
    """A worker, the engine behind it and the agent over it."""

    worker: WorkerProcess
    engine: RecordingEngine
    agent: FakeAgent
    version: int = 1

    def ask(self, model: str, key: str, *fields: bytes, stream: bool = False) -> Answer:
        """Ask for a chat with a model."""
        body = CHAT.replace(b"model-a", model.encode())
        if stream:
            body = body.replace(b"{", b'{"stream":true,', 1)
        return ask(self.worker.port, request(body, _ID, *fields, key=key))

    def list_models(self, key: str) -> set[str]:
        """Return what GET /v1/models lists, each of which can be got by itself."""
        found = msgspec.json.decode(ask(self.worker.port, get(b"/v1/models", key=key)).body)
        names = {model["id"] for model in found["data"]}
        for name in ("model-a", "closed", "sealed", "deployment", "mixed"):
            one = ask(self.worker.port, get(b"/v1/models/" + name.encode(), key=key))
            assert one.status == (200 if name in names else 404)
        return names

    def shown(self) -> list[str]:
        """Return the credentials that the engine was shown since the last call."""
        found = [seen.header.get("authorization", "") for seen in self.engine.seen]
        self.engine.seen.clear()
        return [value.removeprefix("Bearer ") for value in found]

    def feed(self, fed: Mapping[bytes, bytes]) -> None:
        """Have the worker serve from other records."""
        self.version += 1
        snapshot = _snapshot(self.engine.port, self.version)
        write_snapshot(self.worker.folder / "snapshot", snapshot, fed)
        applied = len([m for m in self.agent.received if isinstance(m, Applied)])
        self.agent.send(Apply(self.version))
        assert self.agent.wait(Applied, applied + 1)[-1] == Applied(self.version)

    def settle(self) -> None:
        """Wait until the worker has read what it was sent: it says so."""
        applied = len([m for m in self.agent.received if isinstance(m, Applied)])
        self.agent.send(Apply(self.version))
        self.agent.wait(Applied, applied + 1)


@contextmanager
def _stage(
    folder: Path, *greeting: Any, fed: Mapping[bytes, bytes] | None = None
) -> Iterator[Stage]:
    with (
        running_engine() as engine,
        running_agent(*greeting) as agent,
        running_worker(
            folder,
            [],
            snapshot=_snapshot(engine.port),
            fed=fed,
            agent_socket=str(agent.path),
        ) as worker,
    ):
        agent.wait(Stats)
        yield Stage(worker, engine, agent)


def _without_id(answer: Answer) -> tuple[object, ...]:
    return answer.status, answer.fields, answer.body


def test_an_alias_that_is_not_granted_does_not_exist(tmp_path: Path) -> None:
    """Without a grant an alias is answered like one that was never there, with one it serves."""
    with _stage(tmp_path) as stage:
        foreign, missing = (stage.ask(name, KEY_A) for name in ("closed", "no-such"))
        assert (foreign.status, foreign.code) == (404, "request:model_not_found")
        assert _without_id(foreign) == _without_id(missing)
        everything = {"model-a", "sealed", "deployment", "mixed"}
        assert stage.list_models(KEY_A) == everything

        stage.feed({grant_name("closed", "org-a", "prj-a"): b""})
        assert [stage.ask("closed", key).status for key in (KEY_A, KEY_A2, KEY_B)] == [
            200,
            404,
            404,
        ]
        assert stage.list_models(KEY_A) == everything | {"closed"}
        assert stage.list_models(KEY_B) == everything

        stage.feed({grant_name("closed", "org-a"): b""})
        assert [stage.ask("closed", key).status for key in (KEY_A, KEY_A2, KEY_B)] == [
            200,
            200,
            404,
        ]
        assert stage.ask("closed", KEY).status == 404, "a grant does not widen a key"

        stage.feed({})
        assert stage.ask("closed", KEY_A).status == 404
        assert len(stage.engine.seen) == 3


def test_data_goes_nowhere_that_a_policy_does_not_allow(tmp_path: Path) -> None:
    """With no allowed choice left it is 403, which names no place; others are served on."""
    allowed = dict([policy_record(Policy(regions=("eu-de",)), "org-a")])
    elsewhere = dict([policy_record(Policy(data_classes=("us_only",)), "org-a", "prj-a")])
    with _stage(tmp_path, Credentials(_TOKENS), fed=allowed | elsewhere) as stage:
        answer = stage.ask("model-a", KEY_A)
        assert (answer.status, answer.code) == (403, "auth:residency_denied")
        assert answer.error["type"] == "permission_error"
        for word in (b"eu-de", b"eu_only", b"us_only", b"engine", b"sealed"):
            assert word not in answer.raw.lower()
        assert stage.list_models(KEY_A) == set()
        assert stage.engine.seen == []

        assert stage.ask("model-a", KEY_A2).status == 200
        assert stage.ask("sealed", KEY_A2).status == 403
        assert stage.list_models(KEY_A2) == {"model-a", "mixed"}
        assert stage.ask("sealed", KEY_B).status == 200
        stage.engine.seen.clear()
        for _ in range(20):
            assert stage.ask("mixed", KEY_A2).status == 200
        assert set(stage.shown()) == {""}, "only the allowed choice was chosen"

        stage.feed({})
        assert stage.ask("model-a", KEY_A).status == 200


def test_an_organization_is_served_on_its_own_credential(tmp_path: Path) -> None:
    """Its own credential replaces all others in its requests, and is in nobody else's."""
    own = dict([own_credential_record("org-a", "sealed", "crd_a")])
    with _stage(tmp_path, Credentials(_TOKENS), fed=own) as stage:
        for _ in range(5):
            for key in (KEY_A, KEY_B, KEY_A2, KEY_B):
                for model in ("sealed", "deployment", "model-a"):
                    assert stage.ask(model, key, stream=True).status == 200
        a, b = (
            ["sk-a-canary", "sk-a-canary", ""],
            ["sk-platform-canary", "sk-deployment-canary", ""],
        )
        assert stage.shown() == [*a, *b, *a, *b] * 5
        stage.worker.stop()
        log = stage.worker.log.read_text()
        journal = b"".join(p.read_bytes() for p in stage.worker.folder.rglob("*.journal"))
        store = b"".join(p.read_bytes() for p in (stage.worker.folder / "snapshot").iterdir())
        for token in _TOKENS.values():
            assert token not in log
            assert token.encode() not in journal + store


def test_an_engine_that_repeats_a_credential_is_not_quoted(tmp_path: Path) -> None:
    """The words of an engine that show the credential of the request do not reach the caller."""
    own = dict([own_credential_record("org-a", "sealed", "crd_a")])
    with _stage(tmp_path, Credentials(_TOKENS), fed=own) as stage:
        for key, model in ((KEY_A, "sealed"), (KEY_B, "sealed"), (KEY_B, "deployment")):
            answer = stage.ask(model, key, b"x-emulator-status: 400")
            assert answer.status == 400
            assert b"canary" not in answer.raw


def test_nothing_stands_in_for_a_credential_of_ones_own(tmp_path: Path) -> None:
    """Without its token an organization gets 503 and never the platform's; others are served."""
    own = dict([own_credential_record("org-a", "sealed", "crd_gone")])
    with _stage(tmp_path, Credentials(_TOKENS), fed=own) as stage:
        for model in ("sealed", "deployment"):
            answer = stage.ask(model, KEY_A)
            assert (answer.status, answer.code) == (503, "upstream:unusable")
            assert answer.header["retry-after"] == "1"
            assert answer.header["x-penstock-error-source"] == "gateway"
        assert stage.ask("mixed", KEY_A).status == 200
        assert stage.shown() == [""], "the choice without a token was passed over"
        assert stage.ask("sealed", KEY_B).status == 200
        assert stage.shown() == ["sk-platform-canary"]


def test_tokens_take_effect_at_once(tmp_path: Path) -> None:
    """The next request shows what the agent sent last, and parts count together or not at all."""
    with _stage(tmp_path) as stage:
        assert stage.ask("sealed", KEY_A).status == 503
        stage.agent.send(Credentials({"crd_p": "sk-1"}))
        stage.settle()
        assert stage.ask("sealed", KEY_A).status == 200
        stage.agent.send(Credentials({"crd_p": "sk-2"}, is_last=False))
        stage.settle()
        assert stage.ask("sealed", KEY_A).status == 200
        stage.agent.send(Credentials({"crd_d": "sk-d"}))
        stage.settle()
        assert stage.ask("sealed", KEY_A).status == 200
        assert stage.ask("deployment", KEY_A).status == 200
        assert stage.shown() == ["sk-1", "sk-1", "sk-2", "sk-d"]
        stage.agent.send(Credentials({}))
        stage.settle()
        assert stage.ask("sealed", KEY_A).status == 503


def test_tokens_outlive_the_agent(tmp_path: Path) -> None:
    """A lost agent takes no token with it, and half of a message that it left says nothing."""
    with _stage(tmp_path, Credentials({"crd_p": "sk-1"})) as stage:
        stage.settle()
        assert stage.ask("sealed", KEY_A).status == 200
        stage.agent.send(Credentials({"crd_d": "sk-half"}, is_last=False))
        stage.settle()
        stage.agent.greeting = ()
        stage.agent.hang_up()
        stage.agent.wait(Hello, 2)
        assert stage.ask("sealed", KEY_A).status == 200
        stage.agent.send(Credentials({"crd_p": "sk-2"}))
        stage.settle()
        assert stage.ask("sealed", KEY_A).status == 200
        assert stage.ask("deployment", KEY_A).status == 503
        assert stage.shown() == ["sk-1", "sk-1", "sk-2"]


def test_a_worker_takes_no_request_before_its_credentials(tmp_path: Path) -> None:
    """When credentials lie sealed on the node, a new worker waits for them before it listens."""
    dek = WrappedDek("dek", "file:kek", 1, b"wrapped")
    sealed = SealedCredential("crd_p", None, "vllm", 1, b"nonce", b"sealed", dek)
    with _stage(tmp_path, Credentials(_TOKENS), fed=dict([sealed_record(sealed)])) as stage:
        assert stage.ask("sealed", KEY_A).status == 200
    with running_engine() as engine, running_agent() as silent:
        started_s = time.monotonic()
        with running_worker(
            tmp_path / "silent",
            [],
            snapshot=_snapshot(engine.port),
            fed=dict([sealed_record(sealed)]),
            agent_socket=str(silent.path),
        ) as worker:
            assert time.monotonic() - started_s > 2.0
            stage = Stage(worker, engine, silent)
            assert stage.ask("model-a", KEY_A).status == 200, "it does not wait for ever"
            assert stage.ask("sealed", KEY_A).status == 503


@pytest.mark.parametrize("name", ["pepper.2", "pepper.17"])
def test_keys_under_the_old_pepper_work_on(tmp_path: Path, name: str) -> None:
    """With a second pepper old keys are found and reported once, new ones are found, too."""
    (tmp_path / name).write_bytes(_NEW_PEPPER)
    new = create_key()
    with _stage(tmp_path) as stage:
        for _ in range(3):
            assert stage.ask("model-a", KEY_A).status == 200
        assert stage.ask("model-a", KEY_B).status == 200
        assert stage.ask("model-a", new).status == 401
        macs = {
            (key_mac(PEPPER, key.encode()), key_mac(_NEW_PEPPER, key.encode()))
            for key in (KEY_A, KEY_B)
        }
        seen: list[tuple[bytes, bytes]] = []
        while len(seen) < 2:
            seen = [pair for message in stage.agent.wait(Rehashed) for pair in message.hashes]
            time.sleep(0.05)
        stage.agent.wait(Stats, len([m for m in stage.agent.received if isinstance(m, Stats)]) + 1)
        assert len(seen) == 2
        assert set(seen) == macs
        assert {event.key_secret_id for event in stage.worker.wait_events(4)} == {"sec-a", ""}


def test_a_pepper_that_is_added_is_read_with_the_next_snapshot(tmp_path: Path) -> None:
    """Workers follow a change of peppers without a restart."""
    with _stage(tmp_path) as stage:
        (tmp_path / "pepper.2").write_bytes(_NEW_PEPPER)
        stage.settle()
        assert stage.ask("model-a", KEY_A).status == 200
        (pairs,) = (message.hashes for message in stage.agent.wait(Rehashed))
        assert [new for _, new in pairs] == [key_mac(_NEW_PEPPER, KEY_A.encode())]


def test_without_a_pepper_no_worker_starts(tmp_path: Path) -> None:
    """A missing pepper is trouble at the start, not a worker that knows no key."""
    with (
        pytest.raises(RuntimeError, match=r"gateway\.cannot_start.*pepper"),
        running_worker(tmp_path, [1], pepper_path=str(tmp_path / "nowhere" / "pepper")),
    ):
        pass
    assert not (tmp_path / "nowhere").exists()


def test_who_is_billed_uses_what_has_a_price(tmp_path: Path) -> None:
    """Without one in its currency a model is refused and not listed; a price of 0 is one."""
    billed = dict([billed_record("org-a", "EUR")])
    dollars = dict([prices_record("model-a", (Price("USD", 0, 1, 1, 1),))])
    free = dict([prices_record("model-a", (Price("EUR", 0, 0, 0, 0),))])
    with _stage(tmp_path, Credentials(_TOKENS), fed=billed | dollars) as stage:
        answer = stage.ask("model-a", KEY_A)
        assert (answer.status, answer.code) == (403, "auth:model_unpriced")
        assert stage.list_models(KEY_A) == set()
        assert stage.engine.seen == [], "nothing was sent that nobody would pay for"
        assert stage.ask("model-a", KEY_B).status == 200
        stage.feed(billed | free)
        assert stage.ask("model-a", KEY_A).status == 200
        assert stage.list_models(KEY_A) == {"model-a"}
        stage.feed(dollars)
        assert stage.ask("model-a", KEY_A).status == 200, "it may use what has no price"
