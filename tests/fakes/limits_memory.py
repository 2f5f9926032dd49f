"""What an authority over very many rules takes of memory, weighed in a process of its own."""

import subprocess
import sys

_PROGRAM = """
import asyncio, sys, psutil
from penstock.contract.limits import Ask, Bucket
from penstock.limits.authority import MemoryAuthority
from penstock.limits.rules import geometry_of

async def main(rules):
    authority = MemoryAuthority(lambda: 1_000_000_000)
    before = psutil.Process().memory_info().rss
    for number in range(rules):
        name = f"org_{number % 500:020}/lim_{number:020}:k.key_{number:020}"
        ask = Ask(Bucket(name, 10_000, *geometry_of(60)), 1, 1)
        await authority.take([ask], take_id=f"0-1:{number}", holder="0-1")
    print(psutil.Process().memory_info().rss - before)

asyncio.run(main(int(sys.argv[1])))
"""


def weigh_rules(rules: int) -> int:
    """Return the bytes that an authority takes for so many rules, each with something used."""
    command = [sys.executable, "-c", _PROGRAM, str(rules)]
    return int(subprocess.run(command, capture_output=True, check=True).stdout)
