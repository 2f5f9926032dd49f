"""Every way in which a request can fail as a question to a model."""

from penstock.gateway.declare import downstream

BODY_NOT_JSON = downstream(
    "request:body_not_json",
    400,
    "The request's body is not a JSON object in UTF-8.",
    cause="It does not parse, is nested absurdly deep, or is no object.",
    fix="Send a JSON object, without a byte order mark, in UTF-8.",
)
MESSAGE_MALFORMED = downstream(
    "request:message_malformed",
    400,
    "The message is none of this call's.",
    cause="It is no protocol buffer of this kind, has a field twice, or far too many.",
    fix="Send what a library makes of the protocol's description.",
)
MEMBER_MISSING = downstream(
    "request:member_missing",
    400,
    "A required member of the request's body is missing.",
    conventional="missing_required_parameter",
    cause="The operation needs the member that `param` names.",
    fix="Add it.",
)
MEMBER_INVALID = downstream(
    "request:member_invalid",
    400,
    "A member of the request's body has a wrong type or is out of range.",
    conventional="invalid_value",
    cause="The member that `param` names is of another type or range than the message says.",
    fix="Correct it.",
)
MODEL_NOT_FOUND = downstream(
    "request:model_not_found",
    404,
    "The model does not exist or this API key may not use it.",
    conventional="model_not_found",
    cause=(
        "No alias of that name exists, the key's aliases do not have it, or it is not open and "
        "neither organization nor project has a grant; which is not told."
    ),
    fix="GET /v1/models lists what the key may use.",
    operator="Check the alias, its route, its grants, and the aliases of the key.",
)
VERSION_NOT_FOUND = downstream(
    "request:model_version_not_found",
    404,
    "The model has no such version.",
    conventional="model_not_found",
    cause="The path names a version of the model that its server does not have.",
    fix="Leave the version out of the path, or name one that the model's metadata lists.",
)
PROTOCOL_UNSUPPORTED = downstream(
    "request:protocol_unsupported",
    400,
    "This model is not served by the Open Inference Protocol.",
    conventional="unsupported_operation",
    cause="None of the upstreams of the alias is of a kind that speaks it.",
    fix="Ask the model at /v1, or use another one.",
    operator="The upstream's `provider` says which kind it is: `triton` speaks it.",
)
GRPC_UNSUPPORTED = downstream(
    "request:grpc_unsupported",
    400,
    "This model is not served by gRPC; ask for it by HTTP.",
    conventional="unsupported_operation",
    cause="None of the upstreams of the alias has an endpoint grpc:// or grpcs://.",
    fix="Ask the model at /v2, or use another one.",
    operator="Give the upstream an endpoint grpc://host:8001 beside that of HTTP.",
)
OPERATION_UNSUPPORTED = downstream(
    "request:operation_unsupported",
    400,
    "This model cannot be asked in this way.",
    conventional="unsupported_operation",
    cause=(
        "The model takes a text and answers with one: what `param` names, or the whole operation, "
        "cannot be put to it."
    ),
    fix="Leave it out, or use another model.",
    operator="Add a choice to the route that speaks OpenAI's protocol: it gets such requests.",
)
ADMIN_PATH = downstream(
    "request:admin_path",
    403,
    "This is for the operators of the model server, and not reachable through the gateway.",
    conventional_type="permission_error",
    cause="Loading models, shared memory, tracing, logging, settings and statistics of a server.",
    fix="Ask the platform team.",
    operator="None; `penstock engines operate` has engines do some of this.",
)
REFUSED_BY_ENGINE = downstream(
    "request:refused_by_engine",
    400,
    "The model server refused the request.",
    cause="The engine found the request invalid (e.g. too long for its context).",
    fix="Read the message; it is the engine's own.",
)
CONTEXT_EXCEEDED = downstream(
    "request:context_length_exceeded",
    400,
    "The request has more tokens than the model takes.",
    conventional="context_length_exceeded",
    cause="The engine said so, or failed with a request longer than its context.",
    fix="Shorten it; `max_model_len` in /v1/models says how many tokens fit, where it is known.",
)
STATE_UNSUPPORTED = downstream(
    "request:state_unsupported",
    400,
    "Nothing is kept between requests: send all that the model shall know with each.",
    conventional="unsupported_parameter",
    cause=(
        "What `param` names stands for something that model servers keep: an earlier response, a "
        "conversation, a file, a container. They keep it for all organizations together."
    ),
    fix="Send the earlier messages themselves, and files as data or by their URL.",
)
TOOL_UNSUPPORTED = downstream(
    "request:tool_unsupported",
    400,
    "Only tools that the caller runs by itself can be given to a model here.",
    conventional="unsupported_parameter",
    cause=(
        "A tool that a model server runs, as to search the web, to run code or to ask another "
        "server, reaches what the gateway does not see, and costs what is in no usage."
    ),
    fix="Give functions, run what the model calls, and send what came of it.",
)
