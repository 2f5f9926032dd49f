"""What an authority over very many rules costs."""

import subprocess
import sys

RULES = 100_000
MOST_MB = 200
_PROGRAM = f"""
import asyncio, psutil
from penstock.contract.limits import Ask, Bucket
from penstock.limits.authority import MemoryAuthority
from penstock.limits.rules import geometry_of

async def main():
    authority = MemoryAuthority(lambda: 1_000_000_000)
    before = psutil.Process().memory_info().rss
    for number in range({RULES}):
        name = f"org_{{number % 500:020}}/lim_{{number:020}}:k.key_{{number:020}}"
        ask = Ask(Bucket(name, 10_000, *geometry_of(60)), 1, 1)
        await authority.take([ask], take_id=f"0-1:{{number}}", holder="0-1")
    print((psutil.Process().memory_info().rss - before) // 1_000_000)

asyncio.run(main())
"""


def test_a_hundred_thousand_live_rules_fit_in_memory() -> None:
    """All of them with something used in their window take no more than 200 MB."""
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, check=True)
    assert 10 < int(done.stdout) <= MOST_MB
