"""What servers say of how busy they are, as they write it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.engines.load import Figures, find_strain, read_metrics, read_report
from penstock.engines.model import Load
from penstock.engines.registry import ENGINES
from penstock.engines.triton import TRITON
from penstock.engines.vllm import VLLM

VLLM_PAGE = b"""\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a} b"} 5.0
vllm:num_requests_running{engine="1",model_name="a} b"} 7.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="a} b"} 3.0 1760000000000
vllm:num_requests_waiting{engine="1",model_name="a} b"} 1.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="a} b",reason="capacity"} 900.0
vllm:kv_cache_usage_perc{engine="0",model_name="a} b"} 0.75
vllm:kv_cache_usage_perc{engine="1",model_name="a} b"} 0.25
vllm:num_preemptions_total{engine="0",model_name="a} b"} 9.0
"""
TRITON_PAGE = b"""\
nv_trt_llm_request_metrics{model="m",request_type="waiting",version="1"} 2
nv_trt_llm_request_metrics{model="m",request_type="scheduled",version="1"} 6
nv_trt_llm_request_metrics{model="m",request_type="max",version="1"} 500
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="fraction",model="m",version="1"} 0.1
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="max",model="m",version="1"} 2077
"""


def _load(name: str) -> Load:
    load = ENGINES[name].load
    assert load is not None
    return load


def test_pages_are_read_as_they_are_written() -> None:
    """Series of all ranks count, those of like names or other labels do not."""
    assert read_metrics(_load("vllm"), VLLM_PAGE) == Figures(12.0, 4.0, 0.5)
    assert read_metrics(_load("triton"), TRITON_PAGE) == Figures(6.0, 2.0, 0.1)
    pending = b'nv_inference_pending_request_count{model="adder",version="1"} 3\n'
    assert read_metrics(_load("triton"), TRITON_PAGE + pending) == Figures(6.0, 5.0, 0.1)
    assert read_metrics(_load("triton"), pending) == Figures(None, 3.0, None)
    page = b"dynamo_frontend_queued_requests 2\ndynamo_frontend_inflight_requests 3\n"
    assert read_metrics(_load("dynamo"), page) == Figures(3.0, 2.0, None)


@pytest.mark.parametrize("name", [name for name, each in ENGINES.items() if each.load])
def test_each_kind_is_understood(name: str) -> None:
    """Whatever its metrics are called and labelled, a page with them says how strained it is."""
    load = _load(name)

    def series(metric: str, figure: float) -> str:
        start, _, label = metric.rstrip("}").partition("{")
        labels = 'model="m",' + (label or 'engine="0"')
        return f"# TYPE {start} gauge\n{start}{{{labels}}} {figure}\n"

    page = series(load.running, 3.0) + series(load.waiting, 1.0)
    if load.cache_use:
        page += series(load.cache_use, 0.5)
    figures = read_metrics(load, page.encode())
    assert figures == Figures(3.0, 1.0, 0.5 if load.cache_use else None)
    assert find_strain(figures) == (0.5 if load.cache_use else 0.25)


@pytest.mark.parametrize(
    "page",
    [
        b"",
        b"<html>",
        b"vllm:num_requests_waiting",
        b"vllm:num_requests_waiting \n",
        b"vllm:num_requests_waiting NaN\n",
        b"vllm:num_requests_waiting -1\n",
        b"vllm:num_requests_waiting +Inf\n",
        b"vllm:num_requests_waiting many\n",
        b"vllm:num_requests_waiting{ 3\n",
        b"vllm:num_requests_waiting 12",  # cut off: it may go on
        b"vllm:num_requests_running 3\n",
        b"# vllm:num_requests_waiting 3\n",
    ],
)
def test_what_is_not_said_is_not_zero(page: bytes) -> None:
    """A page without figures that can be believed says nothing."""
    assert read_metrics(_load("vllm"), page) is None


@pytest.mark.parametrize(
    ("report", "figures"),
    [
        # As vLLM writes both forms, and Triton.
        (
            b"TEXT named_metrics.kv_cache_usage_perc=0.25, named_metrics.num_requests_waiting=3.0",
            Figures(None, 3.0, 0.25),
        ),
        (
            b'JSON {"named_metrics": {"kv_cache_usage_perc": 0.25, "num_requests_waiting": 3.0}}',
            Figures(None, 3.0, 0.25),
        ),
        (
            b"TEXT named_metrics.kv_cache_utilization=0.100000, named_metrics.max_token_capacity=9",
            Figures(None, None, 0.1),
        ),
        (
            b'JSON {"cpu_utilization":0.9,"named_metrics":{"kv_cache_utilization":1,"other":2}}',
            Figures(None, None, 1.0),
        ),
        (b"TEXT named_metrics.num_requests_waiting=nan", None),
        (b"TEXT cpu_utilization=0.3, num_requests_waiting=4", None),
        (b'JSON {"named_metrics": {"num_requests_waiting": "3"}}', None),
        (b'JSON {"named_metrics": {"num_requests_waiting": -3}}', None),
        (b"JSON " + b"[" * 1_000, None),
        (b"JSON", None),
        (b"BIN CAE=", None),
        (b"named_metrics.num_requests_waiting=3", None),
        (b"TEXT named_metrics.num_requests_waiting=3," + b" " * 1_024, None),
        (b"", None),
    ],
)
def test_reports_are_read_as_they_are_written(report: bytes, figures: Figures | None) -> None:
    """Both forms of text; anything else says nothing."""
    assert read_report(report) == figures


@given(st.binary(max_size=200), st.sampled_from((b"", b"TEXT ", b"JSON ")))
def test_no_bytes_break_a_reader(content: bytes, form: bytes) -> None:
    """Whatever a server sends, it is figures or nothing."""
    for figures in (read_report(form + content), read_metrics(_load("vllm"), content)):
        if figures is not None:
            strain = find_strain(figures)
            assert strain is None or 0 <= strain <= 1


@pytest.mark.parametrize(
    ("figures", "in_flight", "strain"),
    [
        (Figures(), 9, None),
        (Figures(running=100.0), 9, None),
        (Figures(100.0, 0.0, None), 0, 0.0),
        (Figures(6.0, 2.0, None), 0, 0.25),
        (Figures(6.0, 2.0, 0.5), 0, 0.5),
        (Figures(None, None, 0.5), 99, 0.5),
        (Figures(None, None, 37.0), 0, 1.0),
        (Figures(None, 2.0, None), 0, 1.0),
        (Figures(None, 2.0, None), 8, 0.25),
        (Figures(0.0, 0.0, 0.0), 0, 0.0),
    ],
)
def test_strain_is_the_share_that_waits_or_the_cache(
    figures: Figures, in_flight: int, strain: float | None
) -> None:
    """Whichever is more; how many run is no strain."""
    assert find_strain(figures, in_flight) == strain


def test_those_that_report_have_pages_too() -> None:
    """A report does not say how many requests run: that is known from the page."""
    assert [each for each in ENGINES.values() if each.reports_load] == [VLLM, TRITON]
    assert all(each.load for each in ENGINES.values() if each.reports_load)
