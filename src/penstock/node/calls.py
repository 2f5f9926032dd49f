"""Calls of the control plane: what was sent, what may have been done, and what surely was not."""

from pathlib import Path

import httpx

from penstock.kit.tls import verify_for
from penstock.node.answers import let_go

_REFUSALS = frozenset({400, 413, 422})
"""Answers that say that this content will never be taken, whoever asks how often."""
_NOT_FOUND = 404
_MAX_CONNECTIONS = 64
_KEEP_ALIVE_S = 2.0
"""Less than the control plane's, so that no call meets a connection that is just being closed."""


class NotAnsweredError(Exception):
    """The control plane did not say what it did; it may have done it all the same."""


class NotDoneError(NotAnsweredError):
    """It surely did nothing."""


class CallRefusedError(NotDoneError):
    """It will never take this."""


class PathUnknownError(NotDoneError):
    """It is of a version that does not answer this."""


class ControlCalls:
    """Posts MessagePack to the control plane.

    Args:
        base_url: Of the control plane.
        token_path: File with the node's token; read for every call, so it can be changed.
        timeout_s: The longest that an answer may take.
        transport: Replaces the network in tests.
    """

    def __init__(
        self,
        base_url: str,
        token_path: Path,
        *,
        timeout_s: float,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """See the class."""
        self._base_url = base_url.rstrip("/")
        self._token_path = token_path
        # Nodes talk to their control plane directly; a proxy for the world outside is not for it.
        self._client = httpx.AsyncClient(
            timeout=httpx.Timeout(timeout_s, connect=3.0, pool=3.0),
            limits=httpx.Limits(max_connections=_MAX_CONNECTIONS, keepalive_expiry=_KEEP_ALIVE_S),
            trust_env=False,
            transport=transport,
            verify=verify_for(base_url),
        )

    async def post(self, path: str, content: bytes) -> bytes:
        """Return the answer's body.

        Raises:
            NotAnsweredError: See there, and the errors that are one.
        """
        try:
            token = self._token_path.read_text(encoding="ascii").strip()
            answer = await self._client.post(
                self._base_url + path,
                content=content,
                headers={
                    "authorization": f"Bearer {token}",
                    "content-type": "application/msgpack",
                },
            )
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, OSError) as error:
            raise NotDoneError(_say(error)) from None
        except (httpx.HTTPError, ValueError) as error:
            raise NotAnsweredError(_say(error)) from None
        let_go(answer)
        if answer.status_code in _REFUSALS:
            message = f"status {answer.status_code}"
            raise CallRefusedError(message)
        if answer.status_code == _NOT_FOUND:
            message = f"status {answer.status_code}"
            raise PathUnknownError(message)
        if not answer.is_success:
            message = f"status {answer.status_code}"
            raise NotAnsweredError(message)
        return answer.content

    async def close(self) -> None:
        """Let go of the connections."""
        await self._client.aclose()


def _say(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
