"""The agent as a process."""

import sys

import uvloop

from penstock.catalog.errors import PlatformFileError
from penstock.kit.clock import SystemClock
from penstock.kit.errors import PenstockError
from penstock.kit.logs.setup import configure
from penstock.node import log_events
from penstock.node.agent import run_agent
from penstock.node.settings import decode_settings


def main(arguments: list[str]) -> int:
    """Run an agent and return its exit code."""
    configure("agent")
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m penstock.node '<AgentSettings as JSON>'\n")
        return 2
    try:
        settings = decode_settings(arguments[0])
        configure("agent", form=settings.log_format, level=settings.log_level)
        uvloop.run(run_agent(settings, SystemClock()))
    except PlatformFileError as error:
        for finding in error.findings:
            log_events.CONFIG_INVALID.log(finding=str(finding))
        return 1
    except PenstockError as error:
        log_events.CANNOT_START.log(code=error.error.code, why=error)
        return 1
    return 0
