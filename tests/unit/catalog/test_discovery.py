"""What a source of endpoints may look like."""

from ipaddress import ip_network

import pytest

from penstock.catalog.discovery import MAX_SOURCE_CHARS, Source, parse_source

GOOD = {
    "dns://vllm.models.svc:8000": Source("dns", "vllm.models.svc", (8000,)),
    "dns://Gpu:443?scheme=https": Source("dns", "gpu", (443,), scheme="https"),
    "srv://_http._tcp.gpu.svc?host=Gpu.example": Source(
        "srv", "_http._tcp.gpu.svc", server_name="gpu.example"
    ),
    "file:///etc/gpu.json?path=/serve/v1": Source("file", "/etc/gpu.json", path_prefix="/serve/v1"),
    "file:///a/b.yaml": Source("file", "/a/b.yaml"),
    "kubernetes://ns/services/vllm:http": Source(
        "services", "vllm", port_names=("http",), namespace="ns"
    ),
    "kubernetes://ns/services/vllm:8000": Source("services", "vllm", (8000,), namespace="ns"),
    "kubernetes://ns/services/vllm": Source("services", "vllm", namespace="ns"),
    "kubernetes://ns/pods/app.kubernetes.io/name=vllm,role!=prefill:8000": Source(
        "pods", "app.kubernetes.io/name=vllm,role!=prefill", (8000,), namespace="ns"
    ),
    "registered://gpu-pool?networks=10.0.0.0/8,fd00::/8&host=gpu.example": Source(
        "registered",
        "gpu-pool",
        server_name="gpu.example",
        networks=(ip_network("10.0.0.0/8"), ip_network("fd00::/8")),
    ),
    "dns://gpu:8000-8002": Source("dns", "gpu", (8000, 8001, 8002)),
    "kubernetes://ns/services/vllm:rank-0,rank-1": Source(
        "services", "vllm", port_names=("rank-0", "rank-1"), namespace="ns"
    ),
    "kubernetes://ns/pods/app=vllm,role=decode:8000-8001,9000": Source(
        "pods", "app=vllm,role=decode", (8000, 8001, 9000), namespace="ns"
    ),
    "kubernetes://ns/inferencepools/gpu": Source("inferencepools", "gpu", namespace="ns"),
}
BAD = {
    "": "is no source",
    "gpu:8000": "is no source",
    "dns://gpu:8000 ": "is no source",
    "dns://[::1]:80": "is no source",
    f"dns://{'a.' * MAX_SOURCE_CHARS}a:1": "is no source",
    "http://gpu:80": "has a scheme that nothing is found by",
    "dns://gpu": "is not of the form dns://NAME:PORT",
    "dns://gpu:0": "has a port that does not exist",
    "dns://gpu:65536": "has a port that does not exist",
    "dns://gpu:80/x": "is not of the form dns://NAME:PORT",
    "dns://u:secret@gpu:80": "has a user name",
    "dns://gpu:80#x": "has a user name",
    "dns://169.254.169.254:80": "has an address that no model server has",
    "srv://gpu": "is not of the form srv://",
    "srv://_http._tcp.gpu:80": "is not of the form srv://",
    "file://host/a.json": "names no file",
    "file:///etc/passwd": "names no file",
    "file:///etc/../a.json": "names no file",
    "kubernetes:///services/vllm": "has no namespace",
    "kubernetes://ns:80/services/vllm": "has no namespace",
    "kubernetes://ns/services/": "names nothing in the namespace",
    "kubernetes://ns/services/a/b:80": "names nothing in the namespace",
    "kubernetes://ns/pods/app:80": "names nothing in the namespace",
    "kubernetes://ns/pods/app=vllm": "has a port that does not exist",
    "kubernetes://ns/services/vllm:0": "has a port that does not exist",
    "kubernetes://ns/pods/app=vllm:web,8000": "has a port that does not exist",
    "registered://gpu": "says no networks",
    "registered://gpu?networks=": "says no networks",
    "registered://gpu?networks=10.0.0.1/8": "says no networks",
    "registered://gpu?networks=gpu": "says no networks",
    "registered://?networks=10.0.0.0/8": "is no name",
    "registered://gpu/x?networks=10.0.0.0/8": "has a path",
    "registered://gpu?networks=10.0.0.0/8&scheme=https": "has an option that there is not",
    "dns://gpu:80?networks=10.0.0.0/8": "has an option that there is not",
    "dns://gpu:8000-9000": "has more than 64 ports",
    "kubernetes://ns/services/..:80": "names nothing in the namespace",
    "kubernetes://ns/inferencepools/gpu:80": "names nothing in the namespace",
    "kubernetes://ns/secrets/token": "names nothing in the namespace",
    "dns://gpu:80?weight=1": "has an option that there is not",
    "dns://gpu:80?scheme=http&scheme=https": "has an option that there is not",
    "dns://gpu:80?scheme=ftp": "has another scheme",
    "dns://gpu:8001?scheme=grpc": "finds addresses of gRPC only",
    "dns://gpu:80?path=/%2e%2e/x": 'has "." or ".."',
    "dns://gpu:80?path=@evil": "holds a user name",
    "dns://gpu:80?host=a/b": "has a host that is no host name",
}


@pytest.mark.parametrize("text", GOOD)
def test_sources_are_read(text: str) -> None:
    """Each is what its text says."""
    assert parse_source(text) == GOOD[text]


@pytest.mark.parametrize("text", BAD)
def test_what_could_mean_something_else_is_refused(text: str) -> None:
    """The reason and a remedy are said, and never the text."""
    with pytest.raises(ValueError, match=BAD[text]) as raised:
        parse_source(text)
    assert "secret" not in str(raised.value)
    assert ";" in str(raised.value)


def test_an_address_is_one_endpoint_however_a_source_writes_it() -> None:
    """An IPv4 address that a name server tells as an IPv6 one is the same place."""
    source = parse_source("dns://gpu.internal:8000")
    assert source.endpoint("::ffff:10.0.0.5", 8000) == source.endpoint("10.0.0.5", 8000)
