"""Plans that several owners of a key have."""

from tests.fakes.worker_process import MemoryRecords, make_snapshot

from penstock.contract.limits import Limit, Metric, OwnerLimits
from penstock.contract.snapshot import Key
from penstock.contract.snapshot_store import owner_name
from penstock.gateway.quota import Quota


def test_a_plan_counts_each_bucket_once() -> None:
    """What a plan gives each key is not taken twice because project and organization have it."""
    records = MemoryRecords(make_snapshot([1]))
    shared, each = Limit("s", Metric.REQUESTS, 9), Limit("e", Metric.REQUESTS, 9, per="key")
    records.plans["gold"] = (shared, each)
    records.limits[owner_name("organization", "org-a")] = OwnerLimits("gold")
    records.limits[owner_name("project", "org-a", "project-a")] = OwnerLimits("gold")
    quota = Quota(records, Key("key-a", b"", "org-a", "project-a"))
    assert [(one.limit.id, one.subject) for one in quota.limits] == [
        ("s", "o"),
        ("e", "k.key-a"),
        ("s", "p.project-a"),
    ]
