"""Endpoints in a Kubernetes cluster: of a Service, of pods with labels, of an InferencePool.

Those count that are ready and not on their end. Where a Service has none of these, those that serve
on until they end count, as kube-proxy has it.

Source: kubernetes.io, "EndpointSlices", "Conditions"; gateway-api-inference-extension.sigs.k8s.io,
"InferencePool".
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import aclosing
from functools import partial
from typing import Generic, TypeVar

import msgspec

from penstock.catalog.discovery import Source
from penstock.contract.snapshot import Endpoint
from penstock.node.discovery.answer import Answer
from penstock.node.discovery.cluster import Cluster, Collection, Metadata, Seen
from penstock.node.discovery.labels import ENGINE, WEIGHT, labelled


class Port(msgspec.Struct, frozen=True):
    """A port of an EndpointSlice."""

    name: str | None = None
    port: int | None = None
    protocol: str | None = "TCP"


class Conditions(msgspec.Struct, frozen=True):
    """Of an endpoint of a slice; ready when nobody says."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class SliceEndpoint(msgspec.Struct, frozen=True):
    """Addresses of one pod, of which the first is used."""

    addresses: tuple[str, ...] = ()
    conditions: Conditions | None = None


class Slice(msgspec.Struct, frozen=True, rename="camel"):
    """An EndpointSlice: some of a Service's endpoints, of one family."""

    address_type: str = ""
    endpoints: tuple[SliceEndpoint, ...] | None = None
    ports: tuple[Port, ...] | None = None


class ContainerPort(msgspec.Struct, frozen=True, rename="camel"):
    """A port that a container names."""

    container_port: int
    name: str | None = None


class Container(msgspec.Struct, frozen=True):
    """A container of a pod."""

    ports: tuple[ContainerPort, ...] | None = None


class PodSpec(msgspec.Struct, frozen=True):
    """What a pod is to be."""

    containers: tuple[Container, ...] = ()


class PodCondition(msgspec.Struct, frozen=True):
    """One thing that is known of a pod."""

    type: str
    status: str


class PodStatus(msgspec.Struct, frozen=True):
    """What a pod is."""

    pod_ip: str = msgspec.field(name="podIP", default="")
    conditions: tuple[PodCondition, ...] | None = None


class PodMetadata(Metadata, frozen=True):
    """What a pod is called, and what was written on it."""

    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class Pod(msgspec.Struct, frozen=True):
    """A pod."""

    metadata: PodMetadata
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()


class Selector(msgspec.Struct, frozen=True, rename="camel"):
    """Which pods are a pool's."""

    match_labels: dict[str, str]


class TargetPort(msgspec.Struct, frozen=True):
    """A port of each pod of a pool: with data parallelism, one a rank."""

    number: int


class PoolSpec(msgspec.Struct, frozen=True, rename="camel"):
    """What an InferencePool is."""

    selector: Selector
    target_ports: tuple[TargetPort, ...]


class Pool(msgspec.Struct, frozen=True):
    """An InferencePool."""

    spec: PoolSpec


Decoded = TypeVar("Decoded")


def find_in_slices(source: Source, slices: Iterable[Slice]) -> tuple[Endpoint, ...]:
    """Return the endpoints of a Service.

    Raises:
        ValueError: It has several ports, and the source names none.
    """
    name = f"{source.name}.{source.namespace}.svc"
    ready, ending = [], []
    for each in slices:
        if each.address_type == "FQDN":
            continue
        ports = _ports_of(source, each.ports or ())
        for endpoint in each.endpoints or ():
            conditions = endpoint.conditions or Conditions()
            found = [
                source.endpoint(host, port, name)
                for host in endpoint.addresses[:1]
                for port in ports
            ]
            if not conditions.terminating and conditions.ready is not False:
                ready += found
            elif conditions.terminating and conditions.serving:
                ending += found
    return tuple(ready or ending)


def _ports_of(source: Source, ports: tuple[Port, ...]) -> list[int]:
    """Return the ports of a slice's endpoints, as far as it has those that are meant."""
    usable = {port.port: port.name for port in ports if port.protocol in {"TCP", None}}
    numbers = sorted(port for port in usable if port)
    if source.ports:
        # A slice without ports has all of them.
        return [port for port in source.ports if not ports or port in numbers]
    if source.port_names:
        return [port for port in numbers if usable[port] in source.port_names]
    if len(numbers) > 1:
        message = "the Service has several ports; name those that are meant behind it"
        raise ValueError(message)
    return numbers


def find_in_pods(
    source: Source, pods: Iterable[Pod], ports: tuple[int | str, ...]
) -> tuple[Endpoint, ...]:
    """Return the endpoints at these ports of pods; ports are numbers, or names in the pods."""
    return tuple(
        _of_pod(pod, source.endpoint(pod.status.pod_ip, number))
        for pod in pods
        if _is_ready(pod)
        for port in ports
        for number in _numbers(pod, port)
    )


def _of_pod(pod: Pod, endpoint: Endpoint) -> Endpoint:
    """Return an endpoint with what is written on its pod; a weight that is none counts as 1."""
    labels = {**(pod.metadata.labels or {}), **(pod.metadata.annotations or {})}
    try:
        return labelled(endpoint, labels, ENGINE, WEIGHT)
    except ValueError:  # one pod's mistake is not to keep all others from being seen
        return labelled(endpoint, labels | {WEIGHT: "1"}, ENGINE, WEIGHT)


def _is_ready(pod: Pod) -> bool:
    conditions = {each.type: each.status for each in pod.status.conditions or ()}
    is_ending = pod.metadata.deletion_timestamp is not None
    return bool(pod.status.pod_ip) and not is_ending and conditions.get("Ready") == "True"


def _numbers(pod: Pod, port: int | str) -> Iterator[int]:
    if isinstance(port, int):
        yield port
        return
    for container in pod.spec.containers:
        for each in container.ports or ():
            if each.name == port:
                yield each.container_port


class _Reader(Generic[Decoded]):
    """Reads each object once: when one of a thousand changed, the others are as they were.

    Args:
        kind: Of the objects.
        find: Returns the endpoints of all of them, or raises ValueError.
    """

    def __init__(
        self, kind: type[Decoded], find: Callable[[Iterable[Decoded]], tuple[Endpoint, ...]]
    ) -> None:
        self._decode = msgspec.json.Decoder(kind).decode
        self._find = find
        self._read: dict[str, tuple[msgspec.Raw, Decoded]] = {}

    def answer(self, seen: Seen) -> Answer:
        """Return what the objects that were seen say."""
        if seen.objects is None:
            return Answer(None, seen.fault)
        read = {}
        try:
            for name, content in seen.objects.items():
                before = self._read.get(name)
                if before is None or before[0] is not content:
                    before = content, self._decode(content)
                read[name] = before
            self._read = read
            return Answer(self._find(each for _, each in read.values()))
        except ValueError as error:
            return Answer(None, str(error))


async def follow_cluster(source: Source, cluster: Cluster) -> AsyncGenerator[Answer, None]:
    """Yield the endpoints of a Service or of pods, whenever something was said of them.

    Args:
        source: Of kind `services` or `pods`.
        cluster: Where they are.
    """
    reader: _Reader[Slice] | _Reader[Pod]
    if source.kind == "services":
        collection = Collection(
            f"/apis/discovery.k8s.io/v1/namespaces/{source.namespace}/endpointslices",
            {"labelSelector": f"kubernetes.io/service-name={source.name}"},
        )
        reader = _Reader(Slice, partial(find_in_slices, source))
    else:
        collection = _pods(source, source.name)
        reader = _reader_of_pods(source, source.ports or source.port_names)
    async with aclosing(cluster.follow(collection)) as states:
        async for seen in states:
            yield reader.answer(seen)


async def follow_pool(source: Source, cluster: Cluster) -> AsyncGenerator[Answer, None]:
    """Yield the endpoints of an InferencePool, whenever something was said of it or its pods.

    Args:
        source: Of kind `inferencepools`.
        cluster: Where it is.
    """
    collection = Collection(
        f"/apis/inference.networking.k8s.io/v1/namespaces/{source.namespace}/inferencepools",
        {"fieldSelector": f"metadata.name={source.name}"},
    )
    said: asyncio.Queue[tuple[Collection, Seen]] = asyncio.Queue(maxsize=64)
    spec: PoolSpec | None = None
    watched, watching, reader = collection, None, _reader_of_pods(source, ())
    pool_watching = asyncio.create_task(_pass_on(cluster, collection, said))
    try:
        while True:
            about, seen = await said.get()
            if about is collection:
                before, (spec, answer) = spec, _read_pool(seen, spec)
                if spec is not None and spec != before:
                    await _end(watching)
                    watched = _pods(source, _format_selector(spec.selector))
                    watching = asyncio.create_task(_pass_on(cluster, watched, said))
                    ports = tuple(port.number for port in spec.target_ports)
                    reader = _reader_of_pods(source, ports)
                elif spec is None:
                    await _end(watching)
                    watched, watching = collection, None
                if answer is not None:
                    yield answer
            elif about is watched and spec is not None:
                yield reader.answer(seen)
    finally:
        await _end(pool_watching)
        await _end(watching)


def _read_pool(seen: Seen, known: PoolSpec | None) -> tuple[PoolSpec | None, Answer | None]:
    """Return what a pool is now, and what is to be told of it."""
    if seen.objects is None:
        return known, Answer(None, seen.fault)
    if not seen.objects:
        return None, Answer(())
    try:
        [pool] = [msgspec.json.decode(each, type=Pool) for each in seen.objects.values()]
    except ValueError as error:
        return known, Answer(None, str(error))
    if not pool.spec.selector.match_labels:
        return known, Answer(None, "the InferencePool selects every pod")
    return pool.spec, None


async def _pass_on(
    cluster: Cluster, collection: Collection, said: "asyncio.Queue[tuple[Collection, Seen]]"
) -> None:
    async with aclosing(cluster.follow(collection)) as states:
        async for seen in states:
            objects = None if seen.objects is None else dict(seen.objects)
            await said.put((collection, Seen(objects, seen.fault)))


async def _end(task: "asyncio.Task[None] | None") -> None:
    if task is not None:
        task.cancel()
        await asyncio.wait([task])


def _pods(source: Source, selector: str) -> Collection:
    return Collection(f"/api/v1/namespaces/{source.namespace}/pods", {"labelSelector": selector})


def _format_selector(selector: Selector) -> str:
    return ",".join(f"{name}={value}" for name, value in sorted(selector.match_labels.items()))


def _reader_of_pods(source: Source, ports: tuple[int | str, ...]) -> _Reader[Pod]:
    return _Reader(Pod, partial(find_in_pods, source, ports=ports))
