"""Takes from limits as fast as it can, and says what it has got; to be killed.

usage: python tests/fakes/limits_hammer.py FILE SEED
"""

import asyncio
import random
import sys
from pathlib import Path

from penstock.contract.limits import Ask, Bucket, Lease
from penstock.limits.authority import MemoryAuthority
from penstock.limits.slots import Slots

BUCKETS = [Bucket(f"org/r{number}:o", 10**6, 500, 121) for number in range(50)]
BUCKETS += [Bucket(f"org/c{number}:o", 10**6, 0, 1) for number in range(50)]
NOW_MS = 1_000_000_000


async def hammer(path: Path, seed: int) -> None:
    """Take and give back; each line is a bucket and what of it is out by then at the least."""
    draw = random.Random(seed)
    authority = MemoryAuthority(lambda: NOW_MS, Slots(path))
    number = 0
    while True:
        number += 1
        bucket = draw.choice(BUCKETS)
        answer = await authority.take([Ask(bucket, 3, 3)], take_id=str(number), holder="0-1")
        if not isinstance(answer, tuple):
            raise TypeError(answer)
        if number % 5 == 0:
            sys.stdout.write(f"{bucket.id} 2\n")
            sys.stdout.flush()
            back = Lease(1, answer[0].sub_window, 0)
            await authority.give_back(bucket, back, 1, holder="0-1")
        else:
            sys.stdout.write(f"{bucket.id} 3\n")
            sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(hammer(Path(sys.argv[1]), int(sys.argv[2])))
