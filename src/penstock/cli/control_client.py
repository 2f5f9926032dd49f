"""Asks the control plane, and says what went wrong when it does not answer."""

import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Literal, Self

import httpx

from penstock.cli.errors import CONTROL_FAILED, NOT_RUNNING, CommandError
from penstock.cli.instance import ControlPlane
from penstock.cli.problems import read_problem
from penstock.kit.tls import verify_for

PAGE_ROWS = 1000
"""The most rows that control answers at once."""
_TIMEOUT_S = 30.0
_TRIES = 4
_MAX_PAUSE_S = 5.0
_LOST = (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)
"""The connection broke: the request may have been done or not."""
_IN_FLIGHT = "err:control:access:idempotency_in_flight"

Row = dict[str, Any]
Filters = Mapping[str, str]
Method = Literal["POST", "PUT", "PATCH", "DELETE"]


class ControlClient:
    """The control plane's API as the commands need it; a context manager.

    Every change carries a random `Idempotency-Key`, so that sending it again after the connection
    broke does it once.

    Args:
        control: Where it is, and the admin token.
        transport: Replaces the network in tests.
        create_idempotency_key: Returns a new random one.
        sleep: Waits so many seconds before something is sent again.
    """

    def __init__(
        self,
        control: ControlPlane,
        transport: httpx.BaseTransport | None = None,
        *,
        create_idempotency_key: Callable[[], str] = secrets.token_urlsafe,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """See the class."""
        self._url = control.url
        self._create_idempotency_key = create_idempotency_key
        self._sleep = sleep
        self._client = httpx.Client(
            base_url=control.url,
            headers={"authorization": f"Bearer {control.token}"},
            timeout=_TIMEOUT_S,
            # Proxies are for the outside world; control is ours.
            trust_env=False,
            transport=transport,
            verify=verify_for(control.url),
        )

    def __enter__(self) -> Self:
        """Return the client."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connections."""
        self._client.close()

    def usage_pages(self, filters: Filters, cursor: str | None = None) -> Iterator[list[Row]]:
        """Yield the usage rows that match, oldest first, page by page.

        Raises:
            CommandError: Control is not there, refuses us, or fails.
        """
        return self.pages("/api/v1/usage", filters, cursor)

    def usage_totals(self, by: str, filters: Filters) -> list[Row]:
        """Return requests and tokens of the rows that match, summed by one of their members.

        Raises:
            CommandError: As `usage_pages`.
        """
        return self._list_in(self.get("/api/v1/usage/totals", {**filters, "by": by}))

    def pages(self, path: str, filters: Filters, cursor: str | None = None) -> Iterator[list[Row]]:
        """Yield what a list has, page by page, in its order.

        Raises:
            CommandError: Control is not there, refuses us, or fails.
        """
        while True:
            params = {**filters, "limit": str(PAGE_ROWS)}
            if cursor is not None:
                params["cursor"] = cursor
            answer = self.get(path, params)
            yield self._list_in(answer)
            cursor = answer.get("next_cursor")
            if cursor is None:
                return

    def rows(self, path: str, filters: Filters) -> Iterator[Row]:
        """Yield what a list has, one by one; pages are asked for as they are needed.

        Raises:
            CommandError: As `pages`.
        """
        for page in self.pages(path, filters):
            yield from page

    def get(
        self, path: str, params: Filters | None = None, *, timeout_s: float = _TIMEOUT_S
    ) -> Row:
        """Return an object, or one page of a list.

        Raises:
            CommandError: Control is not there, refuses us, or fails.
        """
        request = self._client.build_request(
            "GET", path, params=dict(params or {}), timeout=timeout_s
        )
        return self._content(self._send(request))

    def download(self, path: str, params: Filters) -> Iterator[bytes]:
        """Yield what is answered, as it comes.

        Raises:
            CommandError: As `get`; or it broke off.
        """
        request = self._client.build_request("GET", path, params=dict(params))
        try:
            answer = self._client.send(request, stream=True)
            try:
                if not answer.is_success:
                    answer.read()
                    raise read_problem(answer)
                yield from answer.iter_bytes()
            finally:
                answer.close()
        except httpx.HTTPError as error:
            raise self._no_answer(request, error) from None

    def find(self, path: str) -> Row | None:
        """Return an object, or None when there is none that we may see.

        Raises:
            CommandError: As `get`, but for 404.
        """
        answer = self._send(self._client.build_request("GET", path))
        return None if answer.status_code == httpx.codes.NOT_FOUND else self._content(answer)

    def change(
        self,
        method: Method,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        version: int | None = None,
        timeout_s: float = _TIMEOUT_S,
    ) -> Row:
        """Change something, once, and return what control answers; {} when that is nothing.

        Args:
            method: What to do.
            path: To what.
            body: Sent as JSON, if any.
            version: Only if the object still has this version.
            timeout_s: How long to wait for each part of the answer.

        Raises:
            CommandError: Control is not there, refuses us, or fails.
        """
        headers = {"idempotency-key": self._create_idempotency_key()}
        if version is not None:
            headers["if-match"] = f'"{version}"'
        content = None if body is None else dict(body)
        request = self._client.build_request(
            method, path, json=content, headers=headers, timeout=timeout_s
        )
        return self._content(self._send(request))

    def _send(self, request: httpx.Request) -> httpx.Response:
        """Send a request, and again when that does no harm and may help."""
        for left in reversed(range(_TRIES)):
            try:
                answer = self._client.send(request)
            except _LOST as error:
                if left:
                    continue
                raise self._no_answer(request, error) from None
            except httpx.HTTPError as error:
                raise self._no_answer(request, error) from None
            pause_s = _pause_s(answer)
            if pause_s is None or not left:
                break
            self._sleep(pause_s)
        return answer

    def _no_answer(self, request: httpx.Request, error: httpx.HTTPError) -> CommandError:
        reason = str(error) or type(error).__name__
        detail = f"The control plane at {self._url} does not answer: {reason}."
        is_unsent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
        if request.method == "GET" or is_unsent:
            return CommandError(NOT_RUNNING, detail)
        remedy = "It may have been done all the same: look before you do it again."
        return CommandError(NOT_RUNNING, detail, remedy)

    def _content(self, answer: httpx.Response) -> Row:
        if not answer.is_success:
            raise read_problem(answer)
        if answer.status_code == httpx.codes.NO_CONTENT:
            return {}
        try:
            content = answer.json()
        except ValueError:
            content = None
        if not isinstance(content, dict):
            raise self._stranger()
        return content

    def _list_in(self, content: Row) -> list[Row]:
        if not isinstance(content.get("data"), list):
            raise self._stranger()
        return list(content["data"])

    def _stranger(self) -> CommandError:
        detail = f"What answers at {self._url} is no Penstock control plane."
        return CommandError(CONTROL_FAILED, detail, "Correct PENSTOCK_URL or --data.")


def _pause_s(answer: httpx.Response) -> float | None:
    """Return how long to wait before sending it again, or None when that would not help."""
    if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
        stated = answer.headers.get("retry-after", "")
        pause_s = float(stated) if stated.isascii() and stated.isdigit() else None
        return pause_s if pause_s is not None and pause_s <= _MAX_PAUSE_S else None
    # The first one, whose connection broke, is still being worked on.
    is_in_flight = answer.status_code == httpx.codes.CONFLICT and _IN_FLIGHT in answer.text
    return 1.0 if is_in_flight else None
