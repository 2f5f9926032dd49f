"""NVIDIA Dynamo's frontend."""

from penstock.engines.model import OVERLOADED, Engine, Load, Priority

DYNAMO = Engine(
    name="dynamo",
    title="NVIDIA Dynamo's frontend",
    owned_by="nvidia",
    ready_path="/v1/models/{model}/ready",
    context_member="context_window",
    load=Load(
        path="/metrics",
        running="dynamo_frontend_inflight_requests",
        waiting="dynamo_frontend_queued_requests",
    ),
    overloaded_statuses=OVERLOADED | {529},
    # `/v1/messages` only with `--enable-anthropic-api`.
    speaks_responses=True,
    errors='`{"message", "type", "code"}`',
    priority=Priority(("nvext", "agent_hints", "priority"), is_higher_earlier=True),
    session_header="x-dynamo-session-id",
    # Asked for more it answers one, and says nothing of the others.
    most_choices=1,
    cancels="closing the connection, at once",
)
