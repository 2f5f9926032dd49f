"""Sound and images through a real worker, from the request to its usage event and what it costs."""

import json
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.fakes.emulator_process import running_emulator
from tests.fakes.http_rig import request
from tests.fakes.raw_http import Answer, RawConnection, ask
from tests.fakes.worker_process import KEY, OTHER_KEY, WorkerProcess, make_snapshot, running_worker

from penstock.contract.usage import UsageEvent, quantities
from penstock.emulator.media import SECOND_BYTES
from penstock.gateway.limits import FORM_HELD_BYTES
from penstock.limits.prices import ATTO
from penstock.rating.rates import read_rates

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "serve-sound-and-images.md"
TRANSCRIPTIONS = b"/v1/audio/transcriptions"
FORM_TYPE = b"Content-Type: multipart/form-data; boundary=b1"
CLIP = b"RIFF" + bytes(5 * SECOND_BYTES // 2)
"""Two and a half seconds, and a little."""
TEXT = "the water runs through a gate of oak"


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    """Return a worker in front of an emulated server that counts tokens."""
    with _running(tmp_path_factory, "openai_compatible") as running:
        yield running


@pytest.fixture(scope="module")
def vllm_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    """Return a worker in front of an emulated vLLM, which counts seconds."""
    with _running(tmp_path_factory, "vllm") as running:
        yield running


@contextmanager
def _running(tmp_path_factory: pytest.TempPathFactory, kind: str) -> Iterator[WorkerProcess]:
    options = ["--kind", kind, "--output-tokens", "8"]
    with running_emulator("served-model", options=options) as url:
        port = int(url.rpartition(":")[2])
        plain = make_snapshot([port])
        upstream = msgspec.structs.replace(plain.upstreams[0], provider=kind)
        snapshot = msgspec.structs.replace(plain, upstreams=(upstream,))
        folder = tmp_path_factory.mktemp(kind)
        with running_worker(folder, [port], snapshot=snapshot) as running:
            yield running


def _field(name: str, value: str) -> bytes:
    head = f'--b1\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'
    return f"{head}{value}\r\n".encode()


def _file(content: bytes) -> bytes:
    head = b'--b1\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n'
    return head + b"Content-Type: audio/wav\r\n\r\n" + content + b"\r\n"


def _form(content: bytes = CLIP, model: str = "model-a", **fields: str) -> bytes:
    parts = [_field(name, value) for name, value in {"model": model, **fields}.items()]
    return b"".join([*parts, _file(content), b"--b1--\r\n"])


def _send(worker: WorkerProcess, form: bytes, path: bytes = TRANSCRIPTIONS, **more: Any) -> Answer:
    return ask(worker.port, request(form, FORM_TYPE, path=path, **more))


def _post(worker: WorkerProcess, path: bytes, body: dict[str, Any]) -> Answer:
    content = json.dumps({"model": "model-a"} | body).encode()
    return ask(worker.port, request(content, path=path))


def _error(answer: Answer) -> tuple[int, str]:
    code = answer.header["x-penstock-error-code"].removeprefix("err:gateway:")
    return answer.status, code


def _last(worker: WorkerProcess) -> UsageEvent:
    return worker.events()[-1]


def _cost(event: UsageEvent, **rates: dict[str, Any]) -> float:
    """Return what an event costs by flat rates, in units."""
    used = quantities(event)
    read = read_rates(rates)
    return sum(rate.amount(used.get(meter, 0)) for meter, rate in read.items()) / ATTO


def test_nobody_and_others_get_nothing(worker: WorkerProcess) -> None:
    """Every path needs a key, and a key for that model."""
    for path in (TRANSCRIPTIONS, b"/v1/audio/translations"):
        assert _error(_send(worker, _form(), path, key=None)) == (401, "auth:key_missing")
        theirs = _send(worker, _form(), path, key=OTHER_KEY)
        assert _error(theirs) == (404, "request:model_not_found")
    for path in (b"/v1/audio/speech", b"/v1/images/generations"):
        body = b'{"model":"model-a","input":"x","prompt":"x"}'
        anonymous = ask(worker.port, request(body, path=path, key=None))
        assert _error(anonymous) == (401, "auth:key_missing")
        theirs = ask(worker.port, request(body, path=path, key=OTHER_KEY))
        assert _error(theirs) == (404, "request:model_not_found")


def test_seconds_of_sound_are_metered_and_priced(vllm_worker: WorkerProcess) -> None:
    """VLLM's duration, rounded up; a price of 0.006 a minute makes 0.0003 of three seconds."""
    answer = _send(vllm_worker, _form(language="en"))
    assert json.loads(answer.body)["text"] == TEXT
    event = _last(vllm_worker)
    assert (event.operation, event.usage_source, event.audio_seconds) == (
        "transcriptions",
        "engine",
        3,
    )
    assert (event.model, event.served_model) == ("model-a", "served-model")
    assert (event.input_tokens, event.output_tokens) == (0, 0)
    assert _cost(event, audio_seconds={"price": "0.0001"}) == 0.0003


def test_tokens_of_sound_are_metered_and_priced(worker: WorkerProcess) -> None:
    """As OpenAI's newer models count: sound is a part of the input."""
    _send(worker, _form())
    event = _last(worker)
    assert (event.input_tokens, event.audio_input_tokens, event.output_tokens) == (30, 30, 8)
    assert event.audio_seconds == 0
    assert _cost(event, audio_input={"price": "6"}, output={"price": "10"}) == 0.00026


@pytest.mark.parametrize("text_format", ["text", "srt", "vtt"])
def test_text_is_made_here_so_that_its_usage_is_known(
    vllm_worker: WorkerProcess, text_format: str
) -> None:
    """The engine is asked for JSON, also where it knows no subtitles."""
    answer = _send(vllm_worker, _form(response_format=text_format))
    assert (answer.status, answer.header["content-type"]) == (200, "text/plain; charset=utf-8")
    text = answer.body.decode()
    beginnings = {"text": TEXT, "srt": "1\n00:00:00,000 --> 00:00:01,500\n", "vtt": "WEBVTT\n\n"}
    assert text.startswith(beginnings[text_format])
    assert text.endswith("\n")
    assert (_last(vllm_worker).audio_seconds, _last(vllm_worker).usage_source) == (3, "engine")


def test_a_transcript_streams_with_its_usage(
    worker: WorkerProcess, vllm_worker: WorkerProcess
) -> None:
    """Events pass as they are; a usage chunk that only we asked for does not."""
    answer = _send(worker, _form(stream="true"))
    assert b'"usage"' in answer.body  # in the event that ends OpenAI's stream anyway
    assert (_last(worker).is_stream, _last(worker).input_tokens) == (True, 30)
    answer = _send(vllm_worker, _form(stream="true"))
    assert answer.body.endswith(b"data: [DONE]\n\n")
    assert b'"usage"' not in answer.body
    event = _last(vllm_worker)
    assert (event.usage_source, event.input_tokens, event.output_tokens) == ("engine", 10, 8)


def test_a_small_form_has_its_fields_in_any_order(vllm_worker: WorkerProcess) -> None:
    """It is sent on when all of it is there."""
    form = _file(CLIP) + _field("response_format", "text") + _field("model", "model-a")
    answer = _send(vllm_worker, form + b"--b1--\r\n")
    assert answer.body.decode() == TEXT + "\n"


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_large_form_goes_through_while_it_arrives(
    vllm_worker: WorkerProcess, *, is_chunked: bool
) -> None:
    """Its length is what the engine counts, and the connection serves the next request."""
    seconds = 2 * FORM_HELD_BYTES // SECOND_BYTES
    form = _form(bytes(seconds * SECOND_BYTES), prompt="x")
    framing = None
    if is_chunked:
        pieces = [form[at : at + 100_000] for at in range(0, len(form), 100_000)]
        form = b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in [*pieces, b""])
        framing = b"Transfer-Encoding: chunked"
    with RawConnection(vllm_worker.port, timeout_s=30) as connection:
        for _ in range(2):
            connection.send(request(form, FORM_TYPE, path=TRANSCRIPTIONS, framing=framing))
            assert json.loads(connection.read_answer().body)["text"] == TEXT
            assert _last(vllm_worker).audio_seconds == seconds


def test_what_decides_comes_before_a_large_file(vllm_worker: WorkerProcess) -> None:
    """Behind it, or twice, it is refused, and the engine never gets the end of it."""
    count = len(vllm_worker.events())
    large = bytes(FORM_HELD_BYTES + 300_000)
    late = _file(large) + _field("model", "model-a") + b"--b1--\r\n"
    assert _error(_send(vllm_worker, late)) == (400, "request:field_too_late")
    assert len(vllm_worker.events()) == count
    again = _form(large)[:-8] + _field("model", "only-theirs") + b"--b1--\r\n"
    assert _error(_send(vllm_worker, again)) == (400, "request:member_invalid")
    event = _last(vllm_worker)
    assert (event.outcome, event.audio_seconds) == ("refused", 0)


@pytest.mark.parametrize(
    ("form", "refusal"),
    [
        (_form(response_format="docx"), (400, "request:member_invalid")),
        (_form(stream="maybe"), (400, "request:member_invalid")),
        (_form(model="model-x"), (404, "request:model_not_found")),
        (_field("model", "model-a") + b"--b1--\r\n", (400, "request:member_missing")),
        (_file(CLIP) + b"--b1--\r\n", (400, "request:member_missing")),
        (_form() + _form(), (200, "")),  # what is behind the end says nothing
        (_form()[:-8], (400, "request:form_invalid")),
        (_field("a", "x" * 70_000), (413, "request:form_too_large")),
        (_field("a", "x") * 65, (413, "request:form_too_large")),
    ],
)
def test_bad_forms_are_told_apart(
    vllm_worker: WorkerProcess, form: bytes, refusal: tuple[int, str]
) -> None:
    """Each with its own words, and nothing of them reaches the engine."""
    count = len(vllm_worker.events())
    answer = _send(vllm_worker, form)
    if refusal[0] == 200:
        assert answer.status == 200
        return
    assert _error(answer) == refusal
    assert len(vllm_worker.events()) == count


def test_boundaries_and_sizes_are_judged_at_the_header(worker: WorkerProcess) -> None:
    """Before any of the body is there."""
    long_one = b"Content-Type: multipart/form-data; boundary=" + b"x" * 71
    answer = ask(worker.port, request(_form(), long_one, path=TRANSCRIPTIONS))
    assert _error(answer) == (400, "request:form_invalid")
    huge = b"Content-Type: multipart/form-data; boundary=" + b"x" * 1_000_000
    with RawConnection(worker.port) as connection:
        connection.send(request(b"", huge, path=TRANSCRIPTIONS, framing=b"Content-Length: 9"))
        assert connection.read_answer().status == 431
    with RawConnection(worker.port) as connection:
        length = b"Content-Length: %d" % (256 * 1024 * 1024 + 1)
        connection.send(request(b"", FORM_TYPE, path=TRANSCRIPTIONS, framing=length))
        assert _error(connection.read_answer()) == (413, "request:form_too_large")


def test_a_caller_that_leaves_stops_the_engine(vllm_worker: WorkerProcess) -> None:
    """In the middle of a large form: it is recorded, and costs nothing."""
    count = len(vllm_worker.events())
    form = _form(bytes(3 * FORM_HELD_BYTES))
    with RawConnection(vllm_worker.port) as connection:
        head = request(b"", FORM_TYPE, path=TRANSCRIPTIONS, framing=b"Content-Length: 99999999")
        connection.send(head + form[: 2 * FORM_HELD_BYTES])
        deadline_s = time.monotonic() + 20
    while len(vllm_worker.events()) == count and time.monotonic() < deadline_s:
        time.sleep(0.05)
    event = _last(vllm_worker)
    assert (event.outcome, event.audio_seconds) == ("caller_gone", 0)


def test_speech_is_metered_by_its_text_or_its_tokens(worker: WorkerProcess) -> None:
    """Sound passes as it comes and says nothing; events end with the engine's own figures."""
    body = {"input": "Größe, 水", "voice": "alloy"}
    answer = _post(worker, b"/v1/audio/speech", body)
    assert (answer.header["content-type"], len(answer.body)) == ("audio/mpeg", 256 * 8)
    event = _last(worker)
    assert (event.characters, event.usage_source, event.output_tokens) == (8, "counted", 0)
    assert _cost(event, characters={"price": "15"}) == 0.00012
    answer = _post(worker, b"/v1/audio/speech", body | {"stream_format": "sse"})
    assert b"speech.audio.done" in answer.body
    event = _last(worker)
    assert (event.characters, event.usage_source, event.output_tokens) == (0, "engine", 8)


def test_images_are_counted_and_priced(worker: WorkerProcess, vllm_worker: WorkerProcess) -> None:
    """With the engine's tokens where it says some."""
    body = {"prompt": "a gate of oak", "n": 3}
    assert len(json.loads(_post(worker, b"/v1/images/generations", body).body)["data"]) == 3
    event = _last(worker)
    assert (event.image_count, event.input_tokens, event.output_tokens) == (3, 3, 3 * 1_056)
    _post(vllm_worker, b"/v1/images/generations", body)
    event = _last(vllm_worker)
    assert (event.image_count, event.output_tokens, event.flags) == (3, 0, ())
    assert _cost(event, images={"price": "0.04"}) == 0.12
    refused = _post(worker, b"/v1/images/generations", body | {"n": 0})
    assert _error(refused) == (400, "request:member_invalid")
    refused = _post(worker, b"/v1/images/generations", body | {"stream": True})
    assert _error(refused) == (400, "request:member_invalid")


def test_the_page_of_the_handbook_works(vllm_worker: WorkerProcess, tmp_path: Path) -> None:
    """Its requests, one after another, are answered and counted."""
    page = PAGE.read_text("utf-8").replace("ps_live_...", KEY).replace("ears", "model-a")
    page = page.replace("http://127.0.0.1:8080", vllm_worker.url)
    (block,) = re.findall(r"^```sh\n(head.*?)^```$", page, re.MULTILINE | re.DOTALL)
    count = len(vllm_worker.events())
    done = subprocess.run(
        ["sh", "-ec", block], capture_output=True, text=True, check=True, timeout=60, cwd=tmp_path
    )
    assert "error" not in done.stdout
    assert "00:00:01,000" in done.stdout
    assert (tmp_path / "spoken.mp3").stat().st_size > 0
    events = vllm_worker.events()[count:]
    assert [event.operation for event in events] == [
        *("transcriptions", "transcriptions", "translations", "speech", "images"),
    ]
    assert [event.audio_seconds for event in events] == [2, 2, 0, 0, 0]
