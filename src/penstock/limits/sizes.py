"""How much of a bucket to lease at once. Pure."""

from msgspec.structs import replace

from penstock.contract.limits import Ask

SHARE_OF_FREE = 4
"""A lease has at most this part of what is free, so that others find some, too."""


def size_of(ask: Ask, free: int | None) -> Ask:
    """Return what to ask an authority for: less than is wanted where little is free.

    Far from the limit a share gets all that it wants. Near it, leases halve and halve again, down
    to what one request needs: then nothing lies idle with one worker while another refuses.

    Args:
        ask: What is wanted.
        free: What the bucket had when it was last heard of; None when it never was.

    >>> from penstock.contract.limits import Bucket
    >>> [size_of(Ask(Bucket("o/r:k", 100), 1, 20), free).want for free in (None, 90, 40, 2)]
    [20, 20, 10, 1]
    """
    if free is None or ask.want <= ask.least:
        return ask
    return replace(ask, want=max(ask.least, min(ask.want, free // SHARE_OF_FREE)))
