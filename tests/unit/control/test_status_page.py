"""The page at `/`."""

from penstock.control.status_page import render_status
from penstock.metering.model import UsageRow, UsageTotal

NOW_US = 1_781_524_800_000_000


def _make_row(request_id: str) -> UsageRow:
    return UsageRow(
        event_id="01977f5e-3c00-7000-8000-000000000000",
        request_id=request_id,
        organization="acme",
        project="search",
        key_id="key-1",
        model="fast",
        served_model="served-fast",
        upstream="engines",
        operation="chat",
        is_stream=True,
        outcome="timeout",
        status=504,
        error_code="err:gateway:upstream:first_byte_timeout",
        usage_source="estimated",
        input_tokens=12_345,
        output_tokens=0,
        cached_input_tokens=None,
        reasoning_output_tokens=None,
        attempt_count=1,
        started_at_us=NOW_US - 2_500_000,
        first_byte_at_us=None,
        finished_at_us=NOW_US,
        flags=[],
        labels=[],
        data_class="",
        region="",
        service_tier="",
        upstream_request_id="",
        cache_write_input_tokens=None,
        audio_input_tokens=None,
        audio_output_tokens=None,
        image_count=0,
        earlier_attempts=[],
        audio_seconds=0,
        characters=0,
        organization_name="Acme & Sons",
        project_name=None,
        key_name="shop",
    )


def test_the_page_shows_totals_and_requests() -> None:
    """Totals of all models, the totals of each and the requests are on the page."""
    totals = [UsageTotal("slow", None, 1, 10, 5), UsageTotal("fast", None, 1_000, 20_000, 9_995)]
    page = render_status(NOW_US, totals, [_make_row("request-1")], 77)
    for text in ("1,001", "20,010", "10,000", "9,995", "request-1", "12,345", "2,500 ms", ">77<"):
        assert text in page
    assert "<td>Acme &amp; Sons / search</td><td>shop</td>" in page
    assert page.index("<td>fast</td>") < page.index("<td>slow</td>")
    assert "2026-06-15T12:00:00Z" in page


def test_the_page_escapes_what_callers_wrote() -> None:
    """A request id is the caller's, and cannot become markup."""
    page = render_status(NOW_US, [], [_make_row("<script>alert(1)</script>")], 0)
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_an_empty_page_says_so() -> None:
    """Without any usage the page says what to do."""
    assert render_status(NOW_US, [], [], 0).count("Nothing yet.") == 2


def test_the_page_loads_nothing() -> None:
    """No address of another server and no script is on the page."""
    page = render_status(NOW_US, [], [], 0)
    assert "://" not in page
    assert "<script" not in page
