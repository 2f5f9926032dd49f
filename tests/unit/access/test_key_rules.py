"""Decisions about API keys."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fakes.organizations import NOW_US, SECOND_US

from penstock.access import key_rules as rules
from penstock.access.errors import KEY_INVALID
from penstock.access.model import ApiKey, KeyOwner, KeyRecord, KeyRefusal, KeySecret
from penstock.kit.errors import PenstockError
from penstock.tenancy.model import Role

KEY = ApiKey(
    id="A" * 12,
    organization_id="org_a",
    project_id="prj_a",
    service_account_id=None,
    member_id=None,
    name="key",
    is_live=True,
    role="inference_only",
    scopes=["inference"],
    allowed_aliases=None,
    allowed_cidrs=None,
    labels={},
    expires_at_us=None,
    is_disabled=False,
    revoked_at_us=None,
    revoked_reason=None,
    rotation_interval_s=None,
    rotation_grace_s=None,
    created_by="admin_token",
    last_used_at_us=None,
    version=1,
    created_at_us=NOW_US,
    updated_at_us=NOW_US,
)
SECRET = KeySecret(
    id="sec_a",
    organization_id="org_a",
    key_id=KEY.id,
    mac=b"m" * 32,
    pepper_id=1,
    state="active",
    created_by="admin_token",
    created_at_us=NOW_US,
    retiring_at_us=None,
    not_after_us=None,
    revoked_at_us=None,
    revoked_reason=None,
    last_used_at_us=None,
)
INVOKERS = {
    "platform_admin",
    "org_owner",
    "org_admin",
    "project_admin",
    "developer",
    "inference_only",
}
OWNER = KeyOwner(role="developer", project_id=None, is_disabled=False, labels={})
RECORD = KeyRecord(key=KEY, secrets=[SECRET], organization_status="active", project_status="active")


def _with_key(**members: object) -> KeyRecord:
    return dataclasses.replace(RECORD, key=dataclasses.replace(KEY, **members))  # type: ignore[arg-type]  # members of a key


def _owned(owner: KeyOwner | None, **members: object) -> KeyRecord:
    record = _with_key(**{"service_account_id": "sa_a", **members})
    return dataclasses.replace(record, owner=owner)


@pytest.mark.parametrize("role", [*Role, "", "root"])
@pytest.mark.parametrize("owner_role", [None, *Role, "root"])
def test_the_data_plane_asks_all_roles(role: str, owner_role: str | None) -> None:
    """Scopes of the data plane are left to a key exactly when each of its roles may invoke."""
    record = _with_key(role=role, scopes=["admin", "inference", "models:read", "usage:read"])
    if owner_role is not None:
        owner = dataclasses.replace(OWNER, role=owner_role)
        key = dataclasses.replace(record.key, member_id="mem_a")
        record = dataclasses.replace(record, key=key, owner=owner)
    roles = {role} | ({owner_role} if owner_role is not None else set())
    left = set(rules.effective_scopes(record))
    assert left >= {"admin", "usage:read"}
    assert ("inference" in left) is ("models:read" in left) is (roles <= INVOKERS)


def test_a_key_without_its_owner_has_no_scope_of_the_data_plane() -> None:
    """An owner who is not there takes the right to call models away, too."""
    assert rules.effective_scopes(_owned(None)) == []


@pytest.mark.parametrize(
    ("record", "refusal"),
    [
        (RECORD, None),
        (_with_key(revoked_at_us=NOW_US), KeyRefusal.REVOKED),
        (_with_key(is_disabled=True), KeyRefusal.DISABLED),
        (_with_key(is_disabled=None), KeyRefusal.DISABLED),
        (_with_key(expires_at_us=NOW_US), KeyRefusal.EXPIRED),
        (_with_key(expires_at_us=NOW_US + 1), None),
        (dataclasses.replace(RECORD, organization_status="suspended"), "organization_inactive"),
        (dataclasses.replace(RECORD, organization_status=None), "organization_inactive"),
        (dataclasses.replace(RECORD, project_status="archived"), "project_inactive"),
        (dataclasses.replace(RECORD, project_status=None), "project_inactive"),
        (_owned(None), KeyRefusal.OWNER_INACTIVE),
        (_owned(OWNER), None),
        (_owned(OWNER, member_id="mem_a", service_account_id=None), None),
        (_owned(None, member_id="mem_a", service_account_id=None), KeyRefusal.OWNER_INACTIVE),
        (_owned(dataclasses.replace(OWNER, is_disabled=True)), KeyRefusal.OWNER_INACTIVE),
        (_owned(dataclasses.replace(OWNER, project_id="prj_a")), None),
        (_owned(dataclasses.replace(OWNER, project_id="prj_b")), KeyRefusal.OWNER_INACTIVE),
        (_owned(OWNER, member_id="mem_a"), KeyRefusal.DAMAGED),
        (_with_key(role="root"), KeyRefusal.DAMAGED),
        (_with_key(scopes=None), KeyRefusal.DAMAGED),
        (_with_key(scopes=["everything"]), KeyRefusal.DAMAGED),
        (_with_key(scopes=[1]), KeyRefusal.DAMAGED),
        (_with_key(allowed_aliases="all"), KeyRefusal.DAMAGED),
        (_with_key(allowed_aliases=[None]), KeyRefusal.DAMAGED),
        (_with_key(allowed_cidrs=["everywhere"]), KeyRefusal.DAMAGED),
        (_with_key(allowed_cidrs=7), KeyRefusal.DAMAGED),
        (_with_key(organization_id=""), KeyRefusal.DAMAGED),
    ],
)
def test_a_key_is_let_in_when_nothing_stands_against_it(
    record: KeyRecord, refusal: str | None
) -> None:
    """Revoked, disabled, expired, suspended and damaged keys are refused, each with its reason."""
    assert rules.find_record_refusal(record, NOW_US) == refusal


@pytest.mark.parametrize(
    ("state", "not_after_us", "is_live"),
    [
        ("active", None, True),
        ("retiring", NOW_US + 1, True),
        ("retiring", NOW_US, False),
        ("revoked", None, False),
        ("poisoned", None, False),
    ],
)
def test_a_secret_lives_until_its_end(
    state: str, not_after_us: int | None, *, is_live: bool
) -> None:
    """A secret works while it is active, or retiring and before its end."""
    secret = dataclasses.replace(SECRET, state=state, not_after_us=not_after_us)
    assert rules.is_live(secret, NOW_US) is is_live


def test_a_secret_is_found_under_its_own_pepper_only() -> None:
    """A hash under one pepper never matches a secret that is stored under another."""
    other = dataclasses.replace(SECRET, id="sec_b", pepper_id=2, mac=b"n" * 32)
    macs = {1: b"m" * 32, 2: b"n" * 32}
    assert rules.match_secret([SECRET, other], {1: b"m" * 32, 2: b"x" * 32}) == SECRET
    assert rules.match_secret([other, SECRET], {1: b"x" * 32, 2: b"n" * 32}) == other
    assert rules.match_secret([SECRET], {2: b"m" * 32}) is None
    assert rules.match_secret([], macs) is None
    blank = dataclasses.replace(SECRET, pepper_id=9, mac=bytes(32))
    assert rules.match_secret([blank], macs) is None


@pytest.mark.parametrize(
    ("cidrs", "address", "is_allowed"),
    [
        (None, "203.0.113.9", True),
        (None, None, True),
        ([], "203.0.113.9", False),
        (["203.0.113.0/24"], "203.0.113.9", True),
        (["203.0.113.0/24"], "203.0.114.9", False),
        (["203.0.113.0/24"], "::ffff:203.0.113.9", True),
        (["203.0.113.9/32", "2001:db8::/32"], "2001:db8::1", True),
        (["203.0.113.0/24"], None, False),
        (["0.0.0.0/0", "::/0"], "localhost", False),
    ],
)
def test_addresses_are_those_of_the_list(
    cidrs: list[str] | None, address: str | None, *, is_allowed: bool
) -> None:
    """A key with a list works from its networks only, however the caller's address is written."""
    assert rules.is_address_allowed(cidrs, address) is is_allowed


def test_members_are_brought_into_one_form() -> None:
    """Scopes, aliases, networks and labels are sorted, once each, and in their canonical form."""
    assert rules.normalize_scopes(["usage:read", "admin", "admin"]) == ["admin", "usage:read"]
    assert rules.normalize_aliases(["b", "a", "a"]) == ["a", "b"]
    assert rules.normalize_aliases(None) is None
    assert rules.normalize_cidrs(["10.0.0.0/8", "192.0.2.1", "2001:DB8::/32"]) == [
        "10.0.0.0/8",
        "192.0.2.1/32",
        "2001:db8::/32",
    ]
    assert list(rules.check_labels({"b": "2", "a/x": ""})) == ["a/x", "b"]


@pytest.mark.parametrize(
    "work",
    [
        lambda: rules.normalize_scopes([]),
        lambda: rules.normalize_scopes(["root"]),
        lambda: rules.normalize_aliases(["x"] * 1_001),
        lambda: rules.normalize_cidrs(["10.0.0.1/8"]),
        lambda: rules.normalize_cidrs(["10.0.0.0/33"]),
        lambda: rules.normalize_cidrs(["everywhere"]),
        lambda: rules.normalize_cidrs(["10.0.0.1"] * 101),
        lambda: rules.check_labels({str(n): "" for n in range(33)}),
        lambda: rules.check_labels({"": ""}),
        lambda: rules.check_labels({"-a": ""}),
        lambda: rules.check_labels({"a": "x" * 257}),
        lambda: rules.check_labels({"a": "\0"}),
        lambda: rules.check_expiry(NOW_US, NOW_US),
        lambda: rules.check_grace(-1),
        lambda: rules.check_grace(30 * 86_400 + 1),
        lambda: rules.check_rotation(None, 60),
        lambda: rules.check_rotation(3_599, None),
        lambda: rules.check_rotation(3_600, 3_600),
    ],
)
def test_what_a_key_cannot_be_is_refused(work: object) -> None:
    """Members out of range or of the wrong form have one error, with a sentence."""
    with pytest.raises(PenstockError) as caught:
        work()  # type: ignore[operator]  # a function under test
    assert caught.value.error is KEY_INVALID


def test_a_grace_period_ends_with_the_key() -> None:
    """An old secret never outlives what it would have lived anyway."""
    assert rules.end_of_grace(KEY, SECRET, NOW_US, 60) == NOW_US + 60 * SECOND_US
    soon = dataclasses.replace(KEY, expires_at_us=NOW_US + 5)
    assert rules.end_of_grace(soon, SECRET, NOW_US, 60) == NOW_US + 5
    sooner = dataclasses.replace(SECRET, not_after_us=NOW_US + 3)
    assert rules.end_of_grace(soon, sooner, NOW_US, 60) == NOW_US + 3


def test_a_rotation_is_due_when_the_secret_is_old() -> None:
    """A policy makes a rotation due at the age that it says, and none never."""
    key = dataclasses.replace(KEY, rotation_interval_s=3_600)
    end = NOW_US + 3_600 * SECOND_US
    assert not rules.is_rotation_due(key, SECRET, end - 1)
    assert rules.is_rotation_due(key, SECRET, end)
    assert not rules.is_rotation_due(KEY, SECRET, end)
    assert not rules.is_rotation_due(key, dataclasses.replace(SECRET, state="retiring"), end)


@given(
    age_s=st.integers(0, 10**9),
    interval_s=st.integers(rules.MIN_ROTATION_INTERVAL_S, rules.MAX_ROTATION_INTERVAL_S),
    grace_s=st.none() | st.integers(0, rules.MAX_GRACE_S),
    expires_in_s=st.none() | st.integers(1, 10**9),
)
def test_a_schedule_ends_what_is_due_and_gives_notice(
    age_s: int, interval_s: int, grace_s: int | None, expires_in_s: int | None
) -> None:
    """An overdue secret ends a grace period after it was found, or with its key; others do not."""
    now_us = NOW_US + age_s * SECOND_US
    expires_at_us = None if expires_in_s is None else now_us + expires_in_s * SECOND_US
    key = dataclasses.replace(
        KEY,
        rotation_interval_s=interval_s,
        rotation_grace_s=grace_s,
        expires_at_us=expires_at_us,
    )
    end_us = rules.find_scheduled_end(key, SECRET, now_us)
    assert (end_us is not None) is (age_s >= interval_s)
    expected_grace_s = min(86_400, interval_s // 2) if grace_s is None else grace_s
    if end_us is not None:
        notice_us = now_us + expected_grace_s * SECOND_US
        assert end_us == min(notice_us, expires_at_us or notice_us)
        # What has an end keeps it: to be found again changes nothing.
        ended = dataclasses.replace(SECRET, not_after_us=end_us)
        assert rules.find_scheduled_end(key, ended, now_us) is None
    retiring = dataclasses.replace(SECRET, state="retiring")
    assert rules.find_scheduled_end(key, retiring, now_us) is None
    unscheduled = dataclasses.replace(key, rotation_interval_s=None)
    assert rules.find_scheduled_end(unscheduled, SECRET, now_us) is None


def test_a_hash_is_not_shown() -> None:
    """No secret's hash is in what logs and tracebacks show of it."""
    assert "mmmm" not in repr(SECRET)
    assert "mmmm" not in repr(RECORD)
