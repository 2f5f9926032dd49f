"""The node's snapshot store: what its writer applies is what its readers find, or nothing is."""

import subprocess
import sys
from pathlib import Path

import lmdb
import msgspec
import pytest

from penstock.contract.snapshot import (
    FORMAT,
    Alias,
    Choice,
    Deployment,
    Endpoint,
    Key,
    Route,
    Snapshot,
    SnapshotFormatError,
    Upstream,
)
from penstock.contract.snapshot_store import (
    Delta,
    SnapshotReader,
    SnapshotStore,
    found_record,
    key_record,
    records_of,
    suspension_name,
    upstream_record,
)

_READ = """
import sys
from pathlib import Path
from penstock.contract.snapshot_store import SnapshotReader
reader = SnapshotReader(Path(sys.argv[1]))
aliases, upstreams = reader.list_aliases(), reader.list_upstreams()
print(reader.meta.version, [a.name for a in aliases], [u.name for u in upstreams])
for mac in sys.argv[2:]:
    key = reader.find_key(bytes.fromhex(mac))
    print(None if key is None else key.id)
"""


def _key(number: int, organization: str = "org", project: str = "prj") -> Key:
    return Key(f"key-{number}", bytes([number]) * 32, organization, project)


def _snapshot(*keys: Key) -> Snapshot:
    return Snapshot(
        version=1,
        created_at_ns=1,
        keys=keys,
        upstreams=(Upstream("up", "vllm", (Endpoint("http", "127.0.0.1", 1),)),),
        deployments=(Deployment("main", "up", "served"),),
        routes=(Route("main", (Choice("main"),)),),
        aliases=(Alias("model-b", "main"), Alias("model-a", "main")),
    )


def _read(path: Path, *macs: bytes) -> list[str]:
    """Read in a process of its own, as workers do: LMDB forbids two openings in one."""
    done = subprocess.run(
        [sys.executable, "-c", _READ, str(path), *(mac.hex() for mac in macs)],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.splitlines() or [done.stderr.splitlines()[-1]]


def test_a_whole_snapshot_is_found_by_other_processes(tmp_path: Path) -> None:
    """A reader in another process finds every record of an applied snapshot."""
    store = SnapshotStore(tmp_path / "store")
    puts = records_of(_snapshot(_key(1), _key(2))).items()
    assert store.apply(Delta(base_version=0, version=7, created_at_ns=1, puts=puts))
    assert store.version == 7
    found = _read(tmp_path / "store", _key(1).mac, _key(2).mac, b"\x09" * 32)
    assert found == ["7 ['model-a', 'model-b'] ['up']", "key-1", "key-2", "None"]


def test_a_delta_changes_only_what_it_names(tmp_path: Path) -> None:
    """A delta adds and removes records and leaves the others."""
    store = SnapshotStore(tmp_path / "store")
    puts = records_of(_snapshot(_key(1), _key(2))).items()
    store.apply(Delta(base_version=0, version=1, created_at_ns=1, puts=puts))
    store.apply(
        Delta(
            base_version=1,
            version=2,
            created_at_ns=2,
            puts=[key_record(_key(3))],
            deletes=[key_record(_key(1))[0]],
        )
    )
    found = _read(tmp_path / "store", _key(1).mac, _key(2).mac, _key(3).mac)
    assert found[1:] == ["None", "key-2", "key-3"]


def test_suspension_stops_all_keys_of_an_organization_or_project(tmp_path: Path) -> None:
    """One record makes every key of an organization, or of one project, unknown."""
    store = SnapshotStore(tmp_path / "store")
    keys = (_key(1, "org-a", "p"), _key(2, "org-a", "q"), _key(3, "org-b", "p"))
    puts = records_of(_snapshot(*keys)).items()
    store.apply(Delta(base_version=0, version=1, created_at_ns=1, puts=puts))
    suspended = [(suspension_name("org-a", "p"), b"")]
    store.apply(Delta(base_version=1, version=2, created_at_ns=2, puts=suspended))
    macs = [key.mac for key in keys]
    assert _read(tmp_path / "store", *macs)[1:] == ["None", "key-2", "key-3"]
    store.apply(
        Delta(
            base_version=2,
            version=3,
            created_at_ns=3,
            puts=[(suspension_name("org-a"), b"")],
            deletes=[suspension_name("org-a", "p")],
        )
    )
    assert _read(tmp_path / "store", *macs)[1:] == ["None", "None", "key-3"]


def test_parts_are_seen_together_or_not_at_all(tmp_path: Path) -> None:
    """Readers keep the version before until the last part is applied; a crash forgets the rest."""
    store = SnapshotStore(tmp_path / "store")
    first = [key_record(_key(1))]
    store.apply(Delta(base_version=0, version=1, created_at_ns=1, puts=first))
    part = Delta(
        base_version=0, version=2, created_at_ns=2, puts=[key_record(_key(2))], is_last=False
    )
    assert not store.apply(part)
    assert _read(tmp_path / "store", _key(1).mac, _key(2).mac)[1:] == ["key-1", "None"]
    store.close()
    again = SnapshotStore(tmp_path / "store")
    assert again.version == 1
    again.close()


def test_a_delta_from_another_version_is_refused(tmp_path: Path) -> None:
    """A delta that does not lead from the version that is here changes nothing."""
    store = SnapshotStore(tmp_path / "store")
    store.apply(Delta(base_version=0, version=1, created_at_ns=1, puts=[]))
    with pytest.raises(SnapshotFormatError, match="leads from version 5, here is 1"):
        store.apply(Delta(base_version=5, version=6, created_at_ns=2, puts=[]))
    assert store.version == 1


def test_an_empty_store_serves_nothing(tmp_path: Path) -> None:
    """A reader of a store without a snapshot says so."""
    SnapshotStore(tmp_path / "store").close()
    [line] = _read(tmp_path / "store")
    assert "SnapshotFormatError: the snapshot store is empty" in line


def write_old_store(path: Path) -> None:
    """Make a store as the version before left it on a node's disk."""
    path.mkdir()
    environment = lmdb.open(str(path))
    with environment.begin(write=True) as transaction:
        meta = {"version": 41, "created_at_ns": 1, "upstreams_version": 3, "format": FORMAT - 1}
        transaction.put(b"m", msgspec.msgpack.encode(meta))
        transaction.put(b"kgone", b"a record in the words of that time")
    environment.close()


def test_a_store_of_another_format_is_refused(tmp_path: Path) -> None:
    """Neither writer nor reader touches records of another format, and both say why."""
    write_old_store(tmp_path / "store")
    why = f"of format {FORMAT - 1}, this version reads {FORMAT}"
    with pytest.raises(SnapshotFormatError, match=why):
        SnapshotStore(tmp_path / "store")
    [line] = _read(tmp_path / "store")
    assert why in line


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    """A damaged store is an error, never an empty snapshot."""
    store = tmp_path / "store"
    store.mkdir()
    (store / "data.mdb").write_bytes(b"nonsense" * 2_000)
    with pytest.raises(lmdb.Error):
        SnapshotStore(store)


def test_an_upstream_has_the_endpoints_that_were_found(tmp_path: Path) -> None:
    """By its source; none are of damaged or missing records, or known to be of another kind."""
    at = Endpoint("https", "10.0.0.1", 8000, "/v1", "gpu.example", engine="vllm")
    other = Endpoint("https", "10.0.0.2", 8000, engine="sglang")
    listed = Upstream("listed", "vllm", (Endpoint("http", "10.0.0.9", 80),))
    found = Upstream("found", "vllm", (), discover="dns://gpu:8000")
    broken = Upstream("broken", "vllm", (), discover="dns://broken:8000")
    lost = Upstream("lost", "vllm", (), discover="dns://lost:8000")
    store = SnapshotStore(tmp_path)
    puts = [*map(upstream_record, (listed, found, broken, lost))]
    puts += [found_record("dns://gpu:8000", (at, other)), (b"wdns://broken:8000", b"?")]
    store.apply(Delta(0, 1, 1, puts))
    assert store.list_found() == {"dns://gpu:8000": (at, other)}
    agents = {each.name: each.endpoints for each in store.list_upstreams()}
    store.apply(Delta(1, 2, 2, [found_record("dns://gpu:8000", ())]))
    store.close()
    reader = SnapshotReader(tmp_path)
    assert reader.meta.upstreams_version == 2
    workers = {each.name: each.endpoints for each in reader.list_upstreams()}
    assert reader.find_upstream("found") == found
    reader.close()
    assert agents == {"listed": listed.endpoints, "found": (at,), "broken": (), "lost": ()}
    assert workers == agents | {"found": ()}
