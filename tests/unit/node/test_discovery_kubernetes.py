"""Endpoints in a Kubernetes cluster, whatever its API server does."""

import asyncio
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fakes.cluster import TOKEN, FakeCluster, Object
from tests.fakes.effort import tries
from tests.fakes.virtual_loop import run_virtual

from penstock.catalog.discovery import Source, parse_source
from penstock.node.discovery.answer import Answer
from penstock.node.discovery.cluster import Cluster
from penstock.node.discovery.kubernetes import follow_cluster, follow_pool
from penstock.node.discovery.settings import DiscoverySettings

SERVICE = parse_source("kubernetes://models/services/vllm:http")
PODS = parse_source("kubernetes://models/pods/app=vllm,role!=prefill:8000")
POOL = parse_source("kubernetes://models/inferencepools/gpu")
SLICES_AT = "/apis/discovery.k8s.io/v1/namespaces/models/endpointslices"
PODS_AT = "/api/v1/namespaces/models/pods"
POOLS_AT = "/apis/inference.networking.k8s.io/v1/namespaces/models/inferencepools"


def slice_of(
    name: str, *hosts: str, family: str = "IPv4", port: int = 8000, **conditions: bool
) -> Object:
    """Return an EndpointSlice, as an API server writes it."""
    return {
        "metadata": {"name": name, "uid": "u", "managedFields": [{"any": 1}]},
        "addressType": family,
        "endpoints": [{"addresses": [host], "conditions": conditions} for host in hosts],
        "ports": [
            {"name": "http", "port": port, "protocol": "TCP"},
            {"name": "metrics", "port": 9000, "protocol": "TCP"},
        ],
    }


def pod(name: str, host: str, *, is_ready: bool = True, **metadata: Any) -> Object:
    """Return a pod."""
    return {
        "metadata": {"name": name, **metadata},
        "spec": {"containers": [{"ports": [{"name": "web", "containerPort": 8001}]}, {}]},
        "status": {
            "podIP": host,
            "conditions": [{"type": "Ready", "status": "True" if is_ready else "False"}],
        },
    }


def pool(*ports: int, **labels: str) -> Object:
    """Return an InferencePool."""
    spec = {
        "selector": {"matchLabels": labels},
        "targetPorts": [{"number": port} for port in ports],
    }
    return {"metadata": {"name": "gpu"}, "spec": spec}


class World:
    """A cluster, and what was learned of it last."""

    def __init__(self, token: Path) -> None:
        """Follow nothing yet."""
        self.server = FakeCluster()
        self.answer: Answer | None = None
        self.faults: list[str] = []
        self.found: list[str] = []
        self.cluster = Cluster(
            DiscoverySettings(
                kubernetes_url="http://cluster.invalid", kubernetes_token_file=str(token)
            ),
            lambda: 0.0,
            self.server,
        )

    @property
    def described(self) -> list[tuple[str, int]]:
        """Kinds and weights of the endpoints, by their addresses."""
        found = () if self.answer is None else self.answer.endpoints or ()
        return [(each.engine, each.weight) for each in sorted(found, key=lambda each: each.host)]

    async def follow(self, source: Source) -> None:
        """Follow it until cancelled."""
        follow: Callable[[Source, Cluster], AsyncGenerator[Answer, None]]
        follow = follow_pool if source.kind == "inferencepools" else follow_cluster
        async with aclosing(follow(source, self.cluster)) as answers:
            async for answer in answers:
                self.answer = answer
                if answer.fault:
                    self.faults.append(answer.fault)
                if answer.endpoints is not None:
                    self.found = sorted({f"{each.host}:{each.port}" for each in answer.endpoints})

    async def until_fault(self) -> None:
        """Wait until something is wrong."""
        while not self.faults:  # noqa: ASYNC110  # it costs no time in a virtual loop
            await asyncio.sleep(0.1)

    async def until(self, *found: str) -> None:
        """Wait until these are the endpoints."""
        async with asyncio.timeout(300):  # of virtual seconds
            while self.answer is None or self.found != sorted(found):  # noqa: ASYNC110  # as above
                await asyncio.sleep(0.1)


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file with a token."""
    path = tmp_path_factory.mktemp("account") / "token"
    path.write_text(TOKEN + "\n")
    return path


def play(token: Path, source: Source, script: Callable[[World], Awaitable[None]]) -> World:
    """Follow a source while a script runs."""

    async def main() -> World:
        world = World(token)
        following = asyncio.create_task(world.follow(source))
        try:
            await script(world)
            assert not following.done()
        finally:
            following.cancel()
            await asyncio.wait([following])
        return world

    return run_virtual(main())


def test_ready_endpoints_of_all_slices_of_a_service(token: Path) -> None:
    """Both families, by the named port; who is not ready, or ends, is none, unless all end."""

    async def script(world: World) -> None:
        put = world.server.put
        await put(SLICES_AT, slice_of("a", "10.0.0.1", "10.0.0.2"))
        await put(SLICES_AT, slice_of("b", "fd00::1", family="IPv6", ready=True))
        await put(SLICES_AT, slice_of("c", "gpu.example", family="FQDN"))
        await put(SLICES_AT, slice_of("d", "10.0.0.3", ready=False))
        await world.until("10.0.0.1:8000", "10.0.0.2:8000", "fd00::1:8000")
        assert world.server.asked[0]["labelSelector"] == "kubernetes.io/service-name=vllm"
        ending = slice_of("a", "10.0.0.1", "10.0.0.2", ready=False, serving=True, terminating=True)
        await put(SLICES_AT, ending)
        await world.until("fd00::1:8000")
        await world.server.delete(SLICES_AT, "b")
        await world.until("10.0.0.1:8000", "10.0.0.2:8000")
        await put(SLICES_AT, slice_of("a"))
        await world.until()
        assert world.answer == Answer(())

    assert play(token, SERVICE, script).faults == []


def test_ports_of_a_service(token: Path) -> None:
    """A number is one that slices have; without any, the only port counts, and of two none."""

    async def script(world: World) -> None:
        await world.server.put(SLICES_AT, slice_of("a", "10.0.0.1"))
        await world.server.put(SLICES_AT, slice_of("b", "10.0.0.2", port=8001))
        await world.until("10.0.0.2:8001")

    play(token, parse_source("kubernetes://models/services/vllm:8001"), script)

    async def ambiguous(world: World) -> None:
        one = slice_of("a", "10.0.0.1")
        await world.server.put(SLICES_AT, one | {"ports": one["ports"][:1]})
        await world.until("10.0.0.1:8000")
        await world.server.put(SLICES_AT, one)
        await world.until_fault()
        assert world.found == ["10.0.0.1:8000"]

    play(token, parse_source("kubernetes://models/services/vllm"), ambiguous)


def test_each_rank_of_a_pod_is_an_endpoint(token: Path) -> None:
    """Of several ports each counts that a slice has, by number or name, and each of all pods."""

    async def script(world: World) -> None:
        await world.server.put(SLICES_AT, slice_of("a", "10.0.0.1"))
        await world.server.put(SLICES_AT, slice_of("b", "10.0.0.2", port=8001))
        await world.until("10.0.0.1:8000", "10.0.0.1:9000", "10.0.0.2:8001", "10.0.0.2:9000")

    play(token, parse_source("kubernetes://models/services/vllm:8000-8003,9000"), script)
    play(token, parse_source("kubernetes://models/services/vllm:http,metrics,other"), script)

    async def of_pods(world: World) -> None:
        await world.server.put(PODS_AT, pod("a", "10.0.0.1"))
        await world.until("10.0.0.1:8000", "10.0.0.1:8001")

    play(token, parse_source("kubernetes://models/pods/app=vllm:8000-8001"), of_pods)


def test_pods_by_label(token: Path) -> None:
    """Those that are ready and not being deleted, at a port by number or by name."""

    async def script(world: World) -> None:
        put = world.server.put
        await put(PODS_AT, pod("a", "10.0.0.1"))
        await put(PODS_AT, pod("b", "10.0.0.2", is_ready=False))
        await put(PODS_AT, pod("c", "10.0.0.3", deletionTimestamp="2026-01-01T00:00:00Z"))
        await put(PODS_AT, pod("d", ""))
        await world.until("10.0.0.1:8000")
        assert world.server.asked[0]["labelSelector"] == "app=vllm,role!=prefill"
        await put(PODS_AT, pod("b", "10.0.0.2"))
        await world.until("10.0.0.1:8000", "10.0.0.2:8000")

    play(token, PODS, script)

    async def described(world: World) -> None:
        labels = {"llm-d.ai/engine-type": "sglang", "penstock/weight": "2"}
        annotations = {"penstock/weight": "3"}
        put = world.server.put
        await put(PODS_AT, pod("a", "10.0.0.1"))
        await put(PODS_AT, pod("b", "10.0.0.2", labels=labels, annotations=annotations))
        await put(PODS_AT, pod("c", "10.0.0.3", labels={"penstock/weight": "many"}))
        await world.until("10.0.0.1:8000", "10.0.0.2:8000", "10.0.0.3:8000")
        assert world.described == [("", 1), ("sglang", 3), ("", 1)]

    play(token, PODS, described)

    async def named(world: World) -> None:
        await world.server.put(PODS_AT, pod("a", "10.0.0.1"))
        await world.until("10.0.0.1:8001")

    play(token, parse_source("kubernetes://models/pods/app=vllm:web"), named)


def test_pods_of_an_inference_pool(token: Path) -> None:
    """Every port of every pod; another selector is followed, and a pool that is gone has none."""

    async def script(world: World) -> None:
        server = world.server
        await server.put(PODS_AT, pod("a", "10.0.0.1"))
        await world.until()
        await server.put(POOLS_AT, pool(8000, 8001, app="vllm", rank="0"))
        await world.until("10.0.0.1:8000", "10.0.0.1:8001")
        assert {"app=vllm,rank=0"} == {
            params["labelSelector"] for params in server.asked if "labelSelector" in params
        }
        await server.put(POOLS_AT, pool(9000, app="other"))
        await world.until("10.0.0.1:9000")
        assert server.asked[-1]["labelSelector"] == "app=other"
        await server.put(POOLS_AT, pool(9000))
        await world.until_fault()
        assert world.found == ["10.0.0.1:9000"]
        await server.delete(POOLS_AT, "gpu")
        await world.until()

    play(token, POOL, script)


def test_a_server_that_fails_takes_nothing_away(token: Path) -> None:
    """Refused, broken, gone or wrong: endpoints stay, it is said why, and a list mends it."""

    async def script(world: World) -> None:
        server = world.server
        server.status = 403
        await asyncio.sleep(5)
        assert world.answer == Answer(None, f"the API server answers 403 to {PODS_AT}")
        server.status = 200
        await server.put(PODS_AT, pod("a", "10.0.0.1"))
        await world.until("10.0.0.1:8000")
        server.status = 500
        await server.drop()
        await asyncio.sleep(5)
        assert world.found == ["10.0.0.1:8000"]
        assert world.answer is not None
        assert world.answer.endpoints is None
        await server.delete(PODS_AT, "a")
        await server.put(PODS_AT, pod("b", "10.0.0.2"))
        server.status = 200
        await world.until("10.0.0.2:8000")
        lists = server.lists
        await server.drop()
        await server.put(PODS_AT, pod("c", "10.0.0.3"))
        await world.until("10.0.0.2:8000", "10.0.0.3:8000")
        assert server.lists == lists  # the watch went on where it was
        await server.fail_watches(410)
        await server.put(PODS_AT, pod("d", "10.0.0.4"))
        await world.until("10.0.0.2:8000", "10.0.0.3:8000", "10.0.0.4:8000")
        assert server.lists == lists + 1
        assert TOKEN not in "".join(world.faults)

    play(token, PODS, script)


def test_a_busy_server_is_left_alone_as_long_as_it_wants(token: Path) -> None:
    """What it has no room for is asked again when it says, and is a fault only when it goes on."""

    async def script(world: World) -> None:
        server, loop = world.server, asyncio.get_running_loop()
        server.busy = 2
        await server.put(PODS_AT, pod("a", "10.0.0.1"))
        began_s = loop.time()
        await world.until("10.0.0.1:8000")
        assert loop.time() - began_s >= 6
        assert (server.refused, world.faults) == ([429, 429], [])
        server.busy = 10
        await server.drop()
        await world.until_fault()
        assert world.found == ["10.0.0.1:8000"]
        assert world.faults == [f"the API server answers 429 to {PODS_AT}"]
        await server.put(PODS_AT, pod("b", "10.0.0.2"))
        await world.until("10.0.0.1:8000", "10.0.0.2:8000")

    play(token, PODS, script)


def test_a_list_is_of_one_moment(token: Path) -> None:
    """What changes between its pages is seen behind it, and pages that expired are begun anew."""

    async def script(world: World) -> None:
        server = world.server
        for number in range(1, 6):
            await server.put(PODS_AT, pod(f"pod-{number}", f"10.0.0.{number}"))
        server.expired_pages, server.page_s = 2, 10.0
        while server.lists < 3:  # noqa: ASYNC110  # it costs no time in a virtual loop
            await asyncio.sleep(1)
        await server.delete(PODS_AT, "pod-5")
        await server.put(PODS_AT, pod("pod-1", "10.0.0.9"))
        await world.until(*(f"10.0.0.{number}:8000" for number in (2, 3, 4, 9)))
        assert server.refused == [410, 410]
        assert server.lists == 3

    assert play(token, PODS, script).faults == []


def test_watches_end_and_go_on(token: Path) -> None:
    """For hours: they go on from the version of the last bookmark, and nothing is listed again."""

    async def script(world: World) -> None:
        server = world.server
        await server.put(PODS_AT, pod("a", "10.0.0.1"))
        await world.until("10.0.0.1:8000")
        for _ in range(50):
            await server.bookmark(PODS_AT)
            await asyncio.sleep(90)
        await server.put(PODS_AT, pod("b", "10.0.0.2"))
        await world.until("10.0.0.1:8000", "10.0.0.2:8000")
        assert server.lists == 1
        watches = [params for params in server.asked if "watch" in params]
        assert len(watches) > 50
        assert int(watches[-1]["resourceVersion"]) > 50

    assert play(token, PODS, script).faults == []


def test_a_token_that_was_renewed_is_shown(tmp_path: Path) -> None:
    """Kubelets renew it in its file: the old one is a fault, and the new one needs no restart."""

    async def script(world: World) -> None:
        server = world.server
        (tmp_path / "token").write_text(TOKEN)
        await server.put(PODS_AT, pod("a", "10.0.0.1"))
        await world.until("10.0.0.1:8000")
        server.token = "renewed"
        await server.drop()
        await server.put(PODS_AT, pod("b", "10.0.0.2"))
        await world.until_fault()
        assert world.faults == [f"the API server answers 401 to {PODS_AT}"]
        assert world.found == ["10.0.0.1:8000"]
        (tmp_path / "token").write_text("renewed")
        await world.until("10.0.0.1:8000", "10.0.0.2:8000")

    play(tmp_path / "token", PODS, script)


def test_without_a_token_nothing_is_asked(tmp_path: Path) -> None:
    """A token that is not there is a fault, and one that comes later is used."""

    async def script(world: World) -> None:
        await world.server.put(PODS_AT, pod("a", "10.0.0.1"))
        await asyncio.sleep(3)
        assert world.server.asked == []
        assert world.faults
        (tmp_path / "token").write_text(TOKEN)
        await world.until("10.0.0.1:8000")

    play(tmp_path / "token", PODS, script)


NAMES = st.sampled_from("abcd")


STEPS = st.one_of(
    st.tuples(st.just("put"), NAMES, st.integers(1, 9), st.booleans()),
    st.tuples(st.just("delete"), NAMES),
    st.tuples(
        st.sampled_from(
            ["bookmark", "drop", "forget", "tear", "410", "500", "wait", "busy", "expire"]
        )
    ),
)


@settings(max_examples=tries(40), deadline=None)
@given(steps=st.lists(STEPS, max_size=25))
def test_any_events_end_in_what_a_list_says(token: Path, steps: list[tuple[Any, ...]]) -> None:
    """Whatever happened, and whatever was missed, the endpoints are those that there are."""

    async def script(world: World) -> None:
        server = world.server
        for step in steps:
            match step:
                case "put", name, number, is_ready:
                    await server.put(PODS_AT, pod(name, f"10.0.0.{number}", is_ready=is_ready))
                case "delete", name:
                    await server.delete(PODS_AT, name)
                case (trouble,):
                    await _have(server, trouble)
        pods = server.objects.get(PODS_AT, {}).values()
        ready = {each["status"]["podIP"] for each in pods if _is_ready(each)}
        await world.until(*(f"{host}:8000" for host in ready))

    play(token, PODS, script)


async def _have(server: FakeCluster, trouble: str) -> None:
    """Have something happen to a server; what it does for a while, besides what it did already."""
    match trouble:
        case "bookmark":
            await server.bookmark(PODS_AT)
        case "drop":
            await server.drop()
        case "forget":
            await server.forget()
        case "tear":
            server.torn = True
        case "busy":
            server.busy += 3
        case "expire":
            server.expired_pages += 1
        case "410" | "500":
            await server.fail_watches(int(trouble))
        case _:
            await asyncio.sleep(1)


def _is_ready(item: Object) -> bool:
    return bool(item["status"]["conditions"][0]["status"] == "True")


async def test_a_node_that_is_no_pod_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the settings and without what pods are told, that is the fault."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    cluster = Cluster(DiscoverySettings(), lambda: 0.0, FakeCluster())
    async with aclosing(follow_cluster(PODS, cluster)) as answers:
        assert "this is no pod" in (await anext(answers)).fault


async def test_a_real_connection_with_tls(token: Path, tmp_path: Path) -> None:
    """The server is verified with the CA file, and its pieces are read as they come."""
    ca = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    server = FakeCluster()
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=context)
    place = DiscoverySettings(
        kubernetes_url=f"https://127.0.0.1:{listener.sockets[0].getsockname()[1]}",
        kubernetes_token_file=str(token),
        kubernetes_ca_file=str(tmp_path / "ca.crt"),
    )
    async with (
        asyncio.timeout(60),
        aclosing(follow_cluster(PODS, Cluster(place, float))) as answers,
    ):
        assert (await anext(answers)).fault  # there is no such file
        trustme.CA().cert_pem.write_to_path(tmp_path / "ca.crt")
        assert (await anext(answers)).fault  # it is signed by somebody else
        assert server.asked == []
        ca.cert_pem.write_to_path(tmp_path / "ca.crt")
        await server.put(PODS_AT, pod("a", "10.0.0.1"))
        assert (await anext(answers)).endpoints == (PODS.endpoint("10.0.0.1", 8000),)
        await server.put(PODS_AT, pod("b", "10.0.0.2"))
        assert len((await anext(answers)).endpoints or ()) == 2
        await server.drop()
        await server.delete(PODS_AT, "a")
        while (await anext(answers)).endpoints != (PODS.endpoint("10.0.0.2", 8000),):
            pass
    listener.close()
    await server.end()


async def test_a_watch_that_falls_silent_is_begun_anew(token: Path) -> None:
    """A connection whose other end is gone without a word is given up, and nothing is lost."""
    server = FakeCluster()
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    place = DiscoverySettings(
        kubernetes_url=f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}",
        kubernetes_token_file=str(token),
    )
    cluster = Cluster(place, float, timeout=httpx.Timeout(30.0, read=1.0))
    async with asyncio.timeout(60), aclosing(follow_cluster(PODS, cluster)) as answers:
        await anext(answers)
        server.is_silent = True
        await server.put(PODS_AT, pod("a", "10.0.0.1"))
        begun = len(server.asked)
        async for answer in answers:
            # The watch that is silent, and one that was begun since.
            server.is_silent = len(server.asked) < begun + 2
            if answer.endpoints:
                break
    listener.close()
    await server.end()
