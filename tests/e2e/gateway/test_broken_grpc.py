"""Engines that answer by gRPC, but only that they are broken: they are passed over."""

from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import grpc
import msgspec
import pytest
from tests.fakes.grpc_caller import SERVICE, calling, text_request
from tests.fakes.ports import free_port
from tests.fakes.worker_process import KEY, make_snapshot, running_worker

from penstock.contract.snapshot import Endpoint
from penstock.gateway.limits import EJECT_AFTER
from penstock.kit.protobuf import length_field

MODEL = "model-a"
WELL = length_field(1, b"served-model")
Answer = Callable[[grpc.ServicerContext], bytes]


def _says(code: grpc.StatusCode) -> Answer:
    def answer(context: grpc.ServicerContext) -> NoReturn:
        context.abort(code, "said so")
        raise AssertionError

    return answer


ANSWERS: dict[str, Answer] = {
    "internal": _says(grpc.StatusCode.INTERNAL),
    "unknown": _says(grpc.StatusCode.UNKNOWN),
    "no message of the protocol": lambda _: b"\xff\xff",
    "callers-mistake": _says(grpc.StatusCode.INVALID_ARGUMENT),
    "no-room": _says(grpc.StatusCode.RESOURCE_EXHAUSTED),
    "too late": _says(grpc.StatusCode.DEADLINE_EXCEEDED),
}
NO_FAULT = ("callers-mistake", "no-room", "too late")
BREAKING_OFF = {
    "status behind half of an answer": (length_field(2, WELL), grpc.StatusCode.INTERNAL),
    "nonsense": (b"\xff\xff", grpc.StatusCode.OK),
}


class Engine(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    """A server that answers all calls in one way, and counts them.

    Args:
        answer: Returns the message of an answer.
        stream: Messages of a stream, and how it ends.
    """

    def __init__(
        self,
        answer: Answer = lambda _: WELL,
        stream: tuple[bytes, grpc.StatusCode] = (length_field(2, WELL), grpc.StatusCode.OK),
    ) -> None:
        """See the class."""
        self.count = 0
        self.port = free_port()
        self._answer = answer
        self._message, self._code = stream

    def service(self, handler_call_details: Any) -> Any:
        """Take a call."""
        if handler_call_details.method == SERVICE + "ModelStreamInfer":
            return grpc.stream_stream_rpc_method_handler(self._stream)
        return grpc.unary_unary_rpc_method_handler(self._unary)

    def _unary(self, _: bytes, context: grpc.ServicerContext) -> bytes:
        self.count += 1
        return self._answer(context)

    def _stream(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        self.count += 1
        for _ in requests:
            yield self._message
        if self._code is not grpc.StatusCode.OK:
            context.abort(self._code, "said so")


@contextmanager
def _serving(engine: Engine) -> Iterator[None]:
    server = grpc.server(futures.ThreadPoolExecutor(2), handlers=(engine,))
    server.add_insecure_port(f"127.0.0.1:{engine.port}")
    server.start()
    try:
        yield
    finally:
        server.stop(None).wait()


@contextmanager
def _calling(folder: Path, *engines: Engine) -> Iterator[Any]:
    """Return a caller of a worker to which the engines are the endpoints of one upstream."""
    plain = make_snapshot([1])
    endpoints = tuple(Endpoint("grpc", "127.0.0.1", engine.port) for engine in engines)
    upstream = msgspec.structs.replace(
        plain.upstreams[0],
        provider="triton",
        endpoints=(*plain.upstreams[0].endpoints, *endpoints),
    )
    snapshot = msgspec.structs.replace(plain, upstreams=(upstream,))
    port = free_port()
    with ExitStack() as stack:
        for engine in engines:
            stack.enter_context(_serving(engine))
        stack.enter_context(running_worker(folder, [], snapshot=snapshot, grpc_port=port))
        yield stack.enter_context(calling(port, KEY))


@pytest.mark.parametrize("name", ANSWERS)
def test_who_only_answers_that_it_is_broken_is_passed_over(tmp_path: Path, name: str) -> None:
    """After some such answers in a row others are asked; a caller's mistake is no such answer."""
    broken, well = Engine(ANSWERS[name]), Engine()
    with _calling(tmp_path, broken, well) as caller:
        codes = [
            caller.unary("ModelInfer", text_request(MODEL)).code() for _ in range(EJECT_AFTER + 3)
        ]
    assert codes.count(grpc.StatusCode.OK) == well.count
    if name == "no-room":  # each was sent to the other as well
        assert broken.count == EJECT_AFTER + 3
    elif name in NO_FAULT:
        assert (broken.count, well.count) == (EJECT_AFTER + 3, 0)
    else:
        assert (broken.count, well.count) == (EJECT_AFTER, 3)


@pytest.mark.parametrize("name", BREAKING_OFF)
def test_who_breaks_streams_off_is_passed_over(tmp_path: Path, name: str) -> None:
    """Also when a part of the answer was well."""
    broken, well = Engine(stream=BREAKING_OFF[name]), Engine()
    with _calling(tmp_path, broken, well) as caller:
        for _ in range(EJECT_AFTER + 3):
            with suppress(grpc.RpcError):
                list(caller.stream([text_request(MODEL)]))
    assert (broken.count, well.count) == (EJECT_AFTER, 3)


def test_errors_within_streams_are_held_against_nobody(tmp_path: Path) -> None:
    """They may be mistakes of callers, who would keep an endpoint from all others by them."""
    says = length_field(1, b"unexpected shape for input")
    one, two = Engine(stream=(says, grpc.StatusCode.OK)), Engine()
    with _calling(tmp_path, one, two) as caller:
        for _ in range(EJECT_AFTER + 3):
            with suppress(grpc.RpcError):
                list(caller.stream([text_request(MODEL)]))
    assert (one.count, two.count) == (EJECT_AFTER + 3, 0)


def test_one_that_is_well_again_is_asked_again(tmp_path: Path) -> None:
    """A whole answer between failures makes them few."""
    answers = iter([b"\xff"] * (EJECT_AFTER - 1) + [WELL] + [b"\xff"] * (EJECT_AFTER - 1))
    one, two = Engine(lambda _: next(answers)), Engine()
    with _calling(tmp_path, one, two) as caller:
        for _ in range(2 * EJECT_AFTER - 1):
            caller.unary("ModelInfer", text_request(MODEL))
    assert (one.count, two.count) == (2 * EJECT_AFTER - 1, 0)
