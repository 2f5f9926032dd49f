"""Asks the control plane, and says what went wrong when it does not answer."""

from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Self

import httpx

from penstock.cli.errors import CONTROL_FAILED, NOT_ALLOWED, NOT_RUNNING, CommandError
from penstock.cli.instance import ControlPlane

PAGE_ROWS = 1000
"""The most rows that control answers at once."""
_TIMEOUT_S = 30.0
_REFUSED = frozenset({httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN})

Row = dict[str, Any]
Filters = Mapping[str, str]


class ControlClient:
    """The control plane's API as the commands need it; a context manager.

    Args:
        control: Where it is, and the admin token.
        transport: Replaces the network in tests.
    """

    def __init__(self, control: ControlPlane, transport: httpx.BaseTransport | None = None) -> None:
        """See the class."""
        self._url = control.url
        self._client = httpx.Client(
            base_url=control.url,
            headers={"authorization": f"Bearer {control.token}"},
            timeout=_TIMEOUT_S,
            # Proxies are for the outside world; control is ours.
            trust_env=False,
            transport=transport,
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
        while True:
            params = {**filters, "limit": str(PAGE_ROWS)}
            if cursor is not None:
                params["cursor"] = cursor
            answer = self._get("/api/v1/usage", params)
            yield list(answer["data"])
            cursor = answer.get("next_cursor")
            if cursor is None:
                return

    def usage_totals(self, by: str, filters: Filters) -> list[Row]:
        """Return requests and tokens of the rows that match, summed by one of their members.

        Raises:
            CommandError: As `usage_pages`.
        """
        return list(self._get("/api/v1/usage/totals", {**filters, "by": by})["data"])

    def _get(self, path: str, params: Filters) -> dict[str, Any]:
        try:
            answer = self._client.get(path, params=dict(params))
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            detail = f"The control plane at {self._url} does not answer: {reason}."
            raise CommandError(NOT_RUNNING, detail) from None
        if answer.status_code in _REFUSED:
            detail = f"The control plane at {self._url} answered {answer.status_code}."
            raise CommandError(NOT_ALLOWED, detail)
        if not answer.is_success:
            detail = f"GET {path} answered {answer.status_code}: {_message(answer)}"
            raise CommandError(CONTROL_FAILED, detail)
        try:
            content = answer.json()
        except ValueError:
            content = None
        if not isinstance(content, dict) or not isinstance(content.get("data"), list):
            detail = f"What answers at {self._url} is no Penstock control plane."
            raise CommandError(CONTROL_FAILED, detail, "Correct PENSTOCK_URL or --data.")
        return content


def _message(answer: httpx.Response) -> str:
    try:
        problem = answer.json()
        return str(problem.get("detail") or problem)[:500]
    except (ValueError, AttributeError):
        return answer.text[:200]
