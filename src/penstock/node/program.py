"""The agent as a process."""

import logging
import sys

import uvloop

from penstock.catalog.errors import PlatformFileError
from penstock.kit.clock import SystemClock
from penstock.kit.errors import PenstockError
from penstock.node.agent import run_agent
from penstock.node.log import configure, line
from penstock.node.settings import decode_settings

log = logging.getLogger("penstock.node")


def main(arguments: list[str]) -> int:
    """Run an agent and return its exit code."""
    configure()
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m penstock.node '<AgentSettings as JSON>'\n")
        return 2
    try:
        uvloop.run(run_agent(decode_settings(arguments[0]), SystemClock()))
    except PlatformFileError as error:
        for finding in error.findings:
            log.critical(line("config invalid", finding=finding))
        return 1
    except PenstockError as error:
        log.critical(line("cannot start", code=error.error.code, why=error))
        return 1
    return 0
