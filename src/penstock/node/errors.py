"""What keeps an agent from starting."""

from penstock.kit.errors import ErrorCode, PenstockError, Source


def _declare(code: str, public: str, cause: str, action: str) -> ErrorCode:
    return ErrorCode(
        code=f"err:node:{code}",
        status=500,
        source=Source.INTERNAL,
        retryable=False,
        public=public,
        conventional_type="server_error",
        conventional_code=code.rpartition(":")[2],
        cause=cause,
        caller_action="None: the node does not serve.",
        operator_action=action,
    )


SETTINGS_INVALID = _declare(
    "start:settings_invalid",
    "The agent's settings are not valid.",
    "The JSON that the agent was started with is broken, or has an unknown or wrong member.",
    "Correct the member that the message names.",
)
DATA_IN_USE = _declare(
    "start:data_in_use",
    "Another agent runs on this data folder.",
    "Another process holds the lock node/agent.lock of the data folder.",
    "Stop the other agent, or give this one a data folder of its own.",
)
PORT_BUSY = _declare(
    "start:port_busy",
    "The port for metrics cannot be listened on.",
    "Another process listens on the metrics port, or the address is not one of this machine.",
    "Stop that process or choose another metrics port.",
)
RUNTIME_UNSAFE = _declare(
    "start:runtime_unsafe",
    "The folder for the agent's socket belongs to somebody else.",
    "A folder with the name of ours is in the folder for temporary files, but is not ours alone.",
    "Remove that folder, or set TMPDIR to a folder that only this user can write.",
)


SECRET_WEAK = _declare(
    "start:secret_weak",
    "A secret of the node can be guessed.",
    "A file in `secrets/` is empty, has fewer than 16 characters, repeats a pattern or is made of "
    "words like `changeme`, `secret` and `admin`.",
    "Put into the file that the message names what the control plane has there, which is random.",
)


class AgentError(PenstockError):
    """The agent cannot start; the detail says what is in the way and where."""
