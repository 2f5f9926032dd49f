"""Engines that the user names are understood, or refused with a reason."""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from penstock.cli.errors import CommandError
from penstock.cli.launch import engine_urls


@pytest.mark.parametrize(
    ("url", "normal"),
    [
        ("http://localhost:8000", "http://localhost:8000"),
        ("http://localhost:8000/v1", "http://localhost:8000"),
        ("http://localhost:8000/v1/", "http://localhost:8000"),
        ("https://llm.example", "https://llm.example:443"),
        ("https://llm.example/serve/v1", "https://llm.example:443/serve"),
        ("http://[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_urls_are_put_in_form(url: str, normal: str) -> None:
    """What people paste becomes scheme, host, port and prefix."""
    assert engine_urls.normalize(url) == normal


@pytest.mark.parametrize(
    "url",
    ["localhost:8000", "ftp://x", "http://", "http://u:secret@x", "http://x?y=1", "http://x:0"],
)
def test_what_is_no_engine_url_is_wrong_usage(url: str) -> None:
    """Anything else is wrong usage, and a password in it is not repeated."""
    with pytest.raises(CommandError) as caught:
        engine_urls.normalize(url)
    assert caught.value.exit_code == 2
    assert "secret" not in str(caught.value)


Serve = Callable[[int, bytes], AbstractContextManager[str]]


@pytest.fixture
def serve() -> Serve:
    """Serve one answer to everything."""

    @contextmanager
    def run(status: int, body: bytes) -> Iterator[str]:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            thread = threading.Thread(target=server.serve_forever, args=(0.01,))
            thread.start()
            yield f"http://127.0.0.1:{server.server_port}"
            server.shutdown()
            thread.join()

    return run


def test_an_engine_says_what_it_serves(serve: Serve) -> None:
    """The ids of the engine's list are returned in its order, those that are no names left out."""
    body = b'{"data": [{"id": "b"}, {"id": "/models/x.gguf"}, {"id": "org/a"}, {"id": "b"}]}'
    with serve(200, body) as url:
        assert engine_urls.list_models(url) == ("b", "org/a")


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (503, b"{}", "answered 503"),
        (200, b"<html>", "no list of models"),
        (200, b'{"data": [1]}', "no list of models"),
        (200, b'{"data": []}', "lists no model"),
    ],
)
def test_an_engine_that_lists_nothing_is_told(
    serve: Serve, status: int, body: bytes, said: str
) -> None:
    """An answer that lists nothing is an error that points to --model."""
    with serve(status, body) as url, pytest.raises(CommandError, match=said) as caught:
        engine_urls.list_models(url)
    assert "--model" in caught.value.remedy


def test_an_engine_that_is_not_there_is_told(serve: Serve) -> None:
    """An engine that does not answer is an error with its URL and what to do."""
    with serve(200, b"") as url:
        pass
    with pytest.raises(CommandError, match=url):
        engine_urls.list_models(url)
