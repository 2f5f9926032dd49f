"""What only operators have engines do cannot be asked of a worker."""

import pytest
from tests.fakes.http_rig import Rig, request

from penstock.engines.operating import write_request
from penstock.engines.registry import ENGINES

PATHS = sorted(
    {
        write_request(each, dict.fromkeys(each.required, "model-a"))[0]
        for engine in ENGINES.values()
        for each in engine.operations
    }
    | {
        # What no operation of ours is, and servers have all the same.
        "/abort_request",
        "/abort_requests",
        "/collective_rpc",
        "/get_server_info",
        "/pause",
        "/resume",
        "/server_info",
        "/update_weights",
        "/update_weights_from_disk",
        "/busy_threshold",
        "/v2/repository/models/model-a/load/",
        "/v1//load_lora_adapter",
        "/v2/logging",
        "/v2/trace/setting",
        "/v2/systemsharedmemory/status",
    }
)


@pytest.mark.parametrize("path", PATHS)
def test_callers_reach_no_operation(rig: Rig, path: str) -> None:
    """Whatever the method, it is not there, or at `/v2` not for callers; no engine hears of it."""
    # Clients of the Open Inference Protocol are told that these are for operators.
    wanted = {403, 404} if path.startswith("/v2/") else {404}
    for method in (b"POST", b"GET"):
        answer = rig.ask(request(method=method, path=path.encode()))
        assert answer.status in wanted, (method, path)
    rig.expect_untouched()
