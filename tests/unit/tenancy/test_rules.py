"""Names, subjects, addresses, roles and statuses."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.kit.errors import ErrorCode, PenstockError
from penstock.tenancy import errors
from penstock.tenancy.model import ORGANIZATION_ROLES, PROJECT_ROLES, Role, Status
from penstock.tenancy.rules import (
    check_role,
    next_status,
    normalize_email,
    normalize_name,
    normalize_subject,
    require_active,
)


@pytest.mark.parametrize(
    ("name", "normal"),
    [
        ("acme", "acme"),
        ("Acme & Söhne GmbH", "Acme & Söhne GmbH"),
        ("Cafe\N{COMBINING ACUTE ACCENT}", "Café"),
        ("株式会社", "株式会社"),
        ("مؤسسة", "مؤسسة"),
        ("🚀", "🚀"),
        ("openai/gpt-4o:latest", "openai/gpt-4o:latest"),
        ("x" * 128, "x" * 128),
        ("'; DROP TABLE organizations; --", "'; DROP TABLE organizations; --"),
    ],
)
def test_names_of_any_script_are_names(name: str, normal: str) -> None:
    """Any visible text of up to 128 characters is a name, kept in its composed form."""
    assert normalize_name(name) == normal


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        " acme",
        "acme ",
        "acme\N{NO-BREAK SPACE}",
        "\N{IDEOGRAPHIC SPACE}acme",
        "x" * 129,
        "a\0b",
        "a\nb",
        "a\tb",
        "a\x7fb",
        "a\x85b",
        "a\N{ZERO WIDTH SPACE}b",
        "a\N{RIGHT-TO-LEFT OVERRIDE}b",
        "a\N{SOFT HYPHEN}b",
        "a\N{LINE SEPARATOR}b",
        "\N{ZERO WIDTH NO-BREAK SPACE}acme",
        "a\ud800b",
        "a\ue000b",
        "a\uffffb",
    ],
)
def test_what_cannot_be_seen_is_no_name(name: str) -> None:
    """Empty, too long, padded and invisible names are refused."""
    with pytest.raises(PenstockError) as caught:
        normalize_name(name)
    assert caught.value.error is errors.NAME_INVALID
    str(caught.value).encode()


@given(name=st.text(max_size=140))
def test_a_normal_name_is_its_own_normal_form(name: str) -> None:
    """Whatever was accepted is accepted again, unchanged, and encodes."""
    try:
        normal = normalize_name(name)
    except PenstockError:
        return
    assert normalize_name(normal) == normal == unicodedata.normalize("NFC", name)
    assert 1 <= len(normal) <= 128
    normal.encode()


@pytest.mark.parametrize("email", ["a@b.example", "a.b+c@d.e.example", "ü@müller.example", None])
def test_addresses_are_kept_as_they_are(email: str | None) -> None:
    """Who has an address keeps it, and nobody needs one."""
    assert normalize_email(email) == email


@pytest.mark.parametrize("email", ["", "a", "@b.example", "a@", "a@b", "a b@c.d", "a@b@c.d\n"])
def test_what_is_no_address_is_refused(email: str) -> None:
    """A text without a name, a host or a dot in it is no address."""
    with pytest.raises(PenstockError) as caught:
        normalize_email(email)
    assert caught.value.error is errors.EMAIL_INVALID


def test_subjects_are_kept_as_they_are() -> None:
    """An identity provider's word for a person is not touched, or refused."""
    decomposed = "Cafe\N{COMBINING ACUTE ACCENT}"
    assert normalize_subject(decomposed) == decomposed
    for wrong in ("", "a\0", "x" * 256):
        with pytest.raises(PenstockError) as caught:
            normalize_subject(wrong)
        assert caught.value.error is errors.SUBJECT_INVALID


def _refusal(call: object, *arguments: object) -> ErrorCode | None:
    try:
        call(*arguments)  # type: ignore[operator]  # a function under test
    except PenstockError as error:
        return error.error
    return None


def test_roles_belong_to_places() -> None:
    """A project has no owners, an organization no operator of the platform."""
    for role in Role:
        expected = None if role in ORGANIZATION_ROLES else errors.ROLE_INVALID
        assert _refusal(check_role, role, None) is expected
        expected = None if role in PROJECT_ROLES else errors.ROLE_INVALID
        assert _refusal(check_role, role, "prj_1") is expected
    assert _refusal(check_role, "root", None) is errors.ROLE_INVALID


@pytest.mark.parametrize(
    ("verb", "status", "after"),
    [
        ("suspend", "active", "suspended"),
        ("suspend", "suspended", "suspended"),
        ("resume", "suspended", "active"),
        ("resume", "active", "active"),
        ("suspend", "archived", None),
        ("resume", "archived", None),
        ("resume", "poisoned", None),
    ],
)
def test_statuses_follow_one_another(verb: str, status: str, after: str | None) -> None:
    """To suspend and to resume can be repeated, and what is archived stays so."""
    if after is None:
        assert _refusal(next_status, verb, status) is errors.STATUS_CONFLICT
    else:
        assert next_status(verb, status) == after


def test_nothing_new_goes_into_what_is_not_active() -> None:
    """Only what is active takes something new, a status that nobody knows does not."""
    require_active(Status.ACTIVE, "organization")
    for status in ("suspended", "archived", "poisoned", ""):
        assert _refusal(require_active, status, "organization") is errors.STATUS_CONFLICT
