"""A client that sends with one key and with another by short turns, and weighs the worker in each.

Figures of seconds that follow one another say more of what the machine did meanwhile than of the
keys. Turns of a fifth of a second share its moods.
"""

from dataclasses import dataclass
from pathlib import Path

from benches.load.measures import BUSY_CONNECTIONS
from benches.load.payloads import Request
from benches.load.processes import cpu_clock
from benches.load.wrk import Load, run_script

TURN_S = 0.2
"""Of another length than sub-windows of limits and sweeps: they begin anywhere in a turn."""
GAP_S = 0.02
"""At the beginning of each, while answers of the turn before are under way: not counted."""
WARMING = 3
"""Blocks that count for nothing, in the beginning."""

_SCRIPT = """\
local ffi = require("ffi")
ffi.cdef("struct when {{ long s; long ns; }}; int clock_gettime(int clock, struct when *now);")
local when = ffi.new("struct when")
local function read(clock)
  ffi.C.clock_gettime(clock, when)
  return tonumber(when.s) + tonumber(when.ns) / 1e9
end

local MONOTONIC, WORKER = 1, {clock}
local ORDER = {{1, 2, 2, 1}}
local sent = {{{requests}}}
local turn, kind, count, began, cpu, counts_from, ends = -1, 1, nil, 0, 0, 0, 0
turns = ""

-- Each is sent when the one before on its connection is answered: to count them counts answers.
function request()
  local now = read(MONOTONIC)
  if now >= ends then
    if count then
      local used = read(WORKER) - cpu
      turns = turns .. string.format(",[%d,%.9f,%.9f]", count, now - began, used)
    end
    turn = turn + 1
    kind, count, counts_from, ends = ORDER[turn % 4 + 1], nil, now + {gap_s}, now + {turn_s}
  elseif count then
    count = count + 1
  elseif now >= counts_from then
    count, began, cpu = 1, now, read(WORKER)
  end
  return sent[kind]
end

local client
function setup(thread)
  client = thread
end
function done(summary, latency)
  local found = client:get("turns"):sub(2)
  io.write("{{" .. figures(summary, latency) .. ',"turns":[' .. found .. "]}}\\n")
end
"""


@dataclass(frozen=True, slots=True)
class Side:
    """What was measured of a key in its turns of a block."""

    requests: int
    seconds: float
    cpu_s: float
    """Of the worker."""

    @property
    def per_second(self) -> float:
        """Answers a second."""
        return self.requests / self.seconds

    @property
    def cpu_us(self) -> float:
        """Microseconds of the worker a request."""
        return self.cpu_s / self.requests * 1e6


@dataclass(frozen=True, slots=True)
class Block:
    """Four turns: the first key, the other twice, the first again."""

    first: Side
    other: Side


@dataclass(frozen=True, slots=True)
class Compared(Load):
    """What wrk saw in one go."""

    turns: list[tuple[int, float, float]]
    """Requests, seconds, and processor time of the worker."""

    def blocks(self) -> list[Block]:
        """Return whole blocks, the first few left out."""
        turns = self.turns
        return [
            Block(_add(turns[at], turns[at + 3]), _add(turns[at + 1], turns[at + 2]))
            for at in range(WARMING * 4, len(turns) - 3, 4)
        ]


def _add(one: tuple[int, float, float], other: tuple[int, float, float]) -> Side:
    return Side(one[0] + other[0], one[1] + other[1], one[2] + other[2])


def run_turns(
    port: int, pid: int, requests: tuple[Request, Request], *, blocks: int, folder: Path
) -> Compared:
    """Send one request and another by turns on `BUSY_CONNECTIONS` connections.

    Args:
        port: Port of the worker at 127.0.0.1.
        pid: The worker.
        requests: What is sent.
        blocks: How many are wanted.
        folder: Takes the script.
    """
    texts = ", ".join(_quote(each.to_bytes()) for each in requests)
    text = _SCRIPT.format(clock=cpu_clock(pid), requests=texts, gap_s=GAP_S, turn_s=TURN_S)
    seconds = (blocks + WARMING) * 4 * TURN_S
    return run_script(
        port, text, Compared, connections=BUSY_CONNECTIONS, seconds=seconds, folder=folder
    )


def _quote(content: bytes) -> str:
    """Return bytes as a string of Lua."""
    return '"' + "".join(f"\\{each:03d}" for each in content) + '"'
