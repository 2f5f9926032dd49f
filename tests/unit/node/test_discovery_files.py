"""Endpoints that files list, written whole and in pieces."""

import json
import os
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import pytest

from penstock.catalog.discovery import Source, parse_source
from penstock.contract.snapshot import Endpoint
from penstock.node.discovery.answer import Answer
from penstock.node.discovery.files import MAX_BYTES, MAX_LISTED, follow_file, read_targets

ONE, TWO = Endpoint("http", "10.0.0.1", 8000), Endpoint("http", "10.0.0.2", 8000)
SOURCE = parse_source("file:///etc/gpu.json?scheme=https&host=gpu.example&path=/v1")


def _write(path: Path, *targets: str) -> None:
    """Write it as one should: beside its place, then renamed."""
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps([{"targets": targets}]))
    beside.rename(path)


def _follow(path: Path) -> AsyncGenerator[Answer, None]:
    return follow_file(parse_source(f"file://{path}"), 0.002)


async def _next(answers: AsyncGenerator[Answer, None], known: Answer) -> Answer:
    """Return the next answer that is another one."""
    async for answer in answers:
        if answer != known:
            return answer
    raise AssertionError


def test_targets_are_as_prometheus_writes_them() -> None:
    """Targets have the source's scheme, path and name, or their group's scheme, or are URLs."""
    groups = [
        {"targets": ["10.0.0.1:8000", "[fd00::1]:8000"], "labels": {"job": "gpu", "n": 1}},
        {"targets": ["gpu-2:80"], "labels": {"__scheme__": "http"}},
        {"targets": ["http://10.0.0.3:8000/own", "grpc://10.0.0.3:8001"]},
    ]
    found = (
        Endpoint("https", "10.0.0.1", 8000, "/v1", "gpu.example"),
        Endpoint("https", "fd00::1", 8000, "/v1", "gpu.example"),
        Endpoint("http", "gpu-2", 80, "/v1", "gpu.example"),
        Endpoint("http", "10.0.0.3", 8000, "/own", "gpu.example"),
        Endpoint("grpc", "10.0.0.3", 8001, "", "gpu.example"),
    )
    assert read_targets(SOURCE, json.dumps(groups).encode()) == found
    labels = {"__weight__": 3, "__engine__": "trtllm-serve"}
    (one,) = read_targets(
        SOURCE, json.dumps([{"targets": ["http://10.0.0.1:8000"], "labels": labels}]).encode()
    )
    assert (one.weight, one.engine) == (3, "trtllm")
    ranks = read_targets(Source("file", "/a.json"), b'[{"targets": ["10.0.0.1:8000-8002"]}]')
    assert [each.port for each in ranks] == [8000, 8001, 8002]
    text = b"- targets: ['10.0.0.1:8000', 10.0.0.2:8000]\n  labels: {job: gpu}\n"
    assert read_targets(Source("file", "/a.yaml"), text) == (ONE, TWO)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[{",
        "{}",
        '[{"labels":{}}]',
        '[{"targets":["10.0.0.1:8000"]},{"targets":["a b"]}]',
        '[{"targets":["user:hunter2@10.0.0.1:8000"]}]',
        '[{"targets":["169.254.169.254:80"]}]',
        '[{"targets":"10.0.0.1"}]',
        '[{"targets":["grpc://10.0.0.1:8001"]}]',
        "\udcff",
        "[" + " " * MAX_BYTES + "]",
    ],
)
async def test_a_file_that_is_not_right_says_nothing(tmp_path: Path, content: str) -> None:
    """Each is a fault and no set of endpoints, and the next whole file is read."""
    path = tmp_path / "gpu.json"
    path.write_bytes(content.encode(errors="surrogateescape"))
    async with aclosing(_follow(path)) as answers:
        answer = await anext(answers)
        assert answer.endpoints is None
        assert answer.fault
        assert "hunter2" not in answer.fault
        _write(path, "10.0.0.1:8000")
        assert await _next(answers, answer) == Answer((ONE,))


async def test_changes_are_seen_and_torn_writes_are_not(tmp_path: Path) -> None:
    """Replaced, gone, and there again; what is written piece by piece never counts in part."""
    path = tmp_path / "gpu.json"
    async with aclosing(_follow(path)) as answers:
        missing = await anext(answers)
        assert missing.endpoints is None
        _write(path, "10.0.0.1:8000")
        assert await _next(answers, missing) == Answer((ONE,))
        _write(path, "10.0.0.1:8000", "10.0.0.2:8000")
        assert await _next(answers, Answer((ONE,))) == Answer((ONE, TWO))
        whole = path.read_bytes()
        path.write_bytes(whole[:20])
        torn = await _next(answers, Answer((ONE, TWO)))
        assert torn.endpoints is None
        path.write_bytes(whole)
        assert await _next(answers, torn) == Answer((ONE, TWO))
        path.unlink()
        gone = await _next(answers, Answer((ONE, TWO)))
        assert gone.endpoints is None
        _write(path)
        assert await _next(answers, gone) == Answer(())


async def test_the_same_file_is_read_again_after_it_was_away(tmp_path: Path) -> None:
    """A file that is moved away and back, as it was, counts again."""
    path = tmp_path / "gpu.json"
    _write(path, "10.0.0.1:8000")
    async with aclosing(_follow(path)) as answers:
        assert await anext(answers) == Answer((ONE,))
        path.rename(tmp_path / "aside")
        gone = await _next(answers, Answer((ONE,)))
        (tmp_path / "aside").rename(path)
        assert await _next(answers, gone) == Answer((ONE,))


async def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    """What has no end is not read."""
    path = tmp_path / "gpu.json"
    os.mkfifo(path)
    async with aclosing(_follow(path)) as answers:
        assert (await anext(answers)).fault == "it is no regular file"


def test_ranges_of_ports_have_a_bound() -> None:
    """A small file that stands for very many endpoints is refused, and is not written out first."""
    few = [f"10.0.0.1:{first}-{first + 63}" for first in range(1, 64_000, 64)]
    content = json.dumps([{"targets": few * 10}]).encode()
    with pytest.raises(ValueError, match=f"more than {MAX_LISTED} endpoints"):
        read_targets(Source("file", "/a.json"), content)
