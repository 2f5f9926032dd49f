"""Many streams, of whose callers some leave: nothing stays. `benches/soak` is the long form."""

from pathlib import Path

from tests.fakes.limited_site import running_site
from tests.fakes.soak import Plan, soak


async def test_nothing_stays_of_streams_that_end_in_any_way(tmp_path: Path) -> None:
    """A fifth of the callers leaves at any moment: no request, hold or event is left over."""
    with running_site(tmp_path, nodes=1) as site:
        seen = await soak(site, Plan(streams=100, seconds=4, gap_ms=50))
    assert seen.faults() == []
    assert seen.left > 0
    assert seen.complete > 100
