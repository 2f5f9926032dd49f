"""What becomes of LiteLLM's settings that are no part of penstock.yaml: why, and what instead.

A table a section; what is in none of them is said to be unknown.
"""

from decimal import Decimal
from typing import NamedTuple

from penstock.catalog.litellm_model import NoteKind, Notes, Place

LOST, CHANGED, NEEDLESS = NoteKind.LOST, NoteKind.CHANGED, NoteKind.NEEDLESS


class Told(NamedTuple):
    """What is said about a setting."""

    kind: NoteKind
    problem: str
    """Why it is not carried and what to do; "the figure" is shown where it stands."""


_LIMIT = Told(
    LOST,
    "penstock.yaml has no limits for an upstream; keep the figure, and limit at the engine",
)
_PRICE = Told(LOST, "penstock.yaml has no prices; keep the figure for the price list")
_DEFAULT = Told(LOST, "requests pass through as callers send them; have callers send it")
_LOGIN = Told(
    LOST, "upstreams are given a bearer token and no other login; make an API key for them"
)
_HEADERS = Told(
    LOST,
    "nothing is added to a request's headers; have callers send them, and list their names under "
    "forward_headers of the upstream",
)
_RETRY = Told(
    CHANGED,
    "a request is tried on another endpoint when connecting failed or the engine had no room, up "
    "to a fifth of all, and never once an answer began; have callers retry what answered 429 or "
    "503",
)
_FALLBACK = Told(
    LOST,
    "a route stands in for another only when connecting failed or it had no room; have callers "
    "choose another",
)
_ROUTING = Told(
    CHANGED,
    "a request goes to the endpoint with the fewest in flight; put machines of one size into an "
    "upstream",
)
_COOLDOWN = Told(
    NEEDLESS,
    "an endpoint that refuses connections is passed over for a while anyway; nothing to do",
)
_REDIS = Told(NEEDLESS, "Penstock needs no Redis for what this file does; nothing to do")
_DATABASE = Told(
    CHANGED,
    "Penstock has a database of its own, and keys, teams, budgets and usage stay in LiteLLM's, "
    "which keeps keys as hashes; make new keys and hand them out",
)
_CACHE = Told(LOST, "answers are not cached; rely on the engine's prefix cache")
_CALLBACK = Told(
    LOST,
    "nothing is called for each request; read /metrics of the agent and the usage API instead",
)
_LOGS = Told(NEEDLESS, "it is about LiteLLM's own logs; nothing to do")
_SPEND = Told(NEEDLESS, "usage is recorded once for each request anyway; nothing to do")
_GUARDRAIL = Told(LOST, "requests and answers are not inspected; keep that in front of Penstock")
_ACCESS = Told(LOST, "access is by key; list the allowed names under `aliases` of the keys")
_LOGIN_OF_CALLERS = Told(LOST, "callers show an API key and nothing else; give each one a key")
_TLS = Told(
    LOST,
    "certificates are verified always; name a private authority under tls_ca_file of the upstream",
)
_HEALTH = Told(NEEDLESS, "endpoints are judged by real requests; nothing to do")

PARAMETERS = {
    **dict.fromkeys(("rpm", "tpm", "max_parallel_requests", "max_budget"), _LIMIT),
    "budget_duration": _LIMIT,
    "order": _ROUTING,
    "stream_timeout": Told(LOST,
        "one limit holds for streams and plain answers; shorten first_byte_ms of the upstream "
        "if all requests are streams",
    ),
    **dict.fromkeys(("max_retries", "num_retries"), _RETRY),
    "api_version": Told(NEEDLESS, "Azure's v1 API takes none; nothing to do"),
    **dict.fromkeys(("headers", "extra_headers"), _HEADERS),
    "organization": Told(LOST, "the header is not sent; use an API key of that organization"),
    **dict.fromkeys(
        (
            "drop_params", "additional_drop_params", "allowed_openai_params", "extra_body",
            "temperature", "top_p", "max_tokens", "max_completion_tokens", "seed", "stop",
            "frequency_penalty", "presence_penalty", "n", "logit_bias", "user", "response_format",
            "tools", "tool_choice", "reasoning_effort", "thinking", "stream", "metadata",
            "initial_prompt_value", "roles", "final_prompt_value", "bos_token", "eos_token",
        ),
        _DEFAULT,
    ),
    **dict.fromkeys(
        (
            "azure_ad_token", "tenant_id", "client_id", "client_secret", "azure_username",
            "azure_password", "aws_access_key_id", "aws_secret_access_key", "aws_session_token",
            "aws_region_name", "aws_session_name", "aws_profile_name", "aws_role_name",
            "vertex_project", "vertex_location", "vertex_credentials", "watsonx_region_name",
        ),
        _LOGIN,
    ),
    "ssl_verify": _TLS,
    "tags": Told(LOST, "requests are not routed by tags; give each tag an alias of its own"),
    "mock_response": Told(LOST, "answers are not made up; use `penstock emulator` as the upstream"),
    "use_in_pass_through": Told(NEEDLESS, "there are no such routes; nothing to do"),
}  # fmt: skip
"""Of `litellm_params`."""

MODEL_INFO = {
    **dict.fromkeys(("access_groups", "team_id", "team_public_model_name"), _ACCESS),
    **dict.fromkeys(("tpm", "rpm"), _LIMIT),
    "max_output_tokens": Told(
        NEEDLESS,
        "LiteLLM does not enforce it; set max_output_tokens of the route to have it enforced",
    ),
}
"""Of `model_info`; the rest describes the model to LiteLLM's own pages."""

ROUTER = {
    **dict.fromkeys(
        ("routing_strategy", "routing_strategy_args", "optional_pre_call_checks"), _ROUTING
    ),
    **dict.fromkeys(("num_retries", "retry_after", "retry_policy", "max_retries"), _RETRY),
    "model_group_retry_policy": _RETRY,
    **dict.fromkeys(
        (
            "context_window_fallbacks", "content_policy_fallbacks", "max_fallbacks",
            "enable_weighted_failover",
        ),
        _FALLBACK,
    ),
    **dict.fromkeys(
        ("allowed_fails", "cooldown_time", "disable_cooldowns", "allowed_fails_policy"), _COOLDOWN
    ),
    **dict.fromkeys(
        ("redis_host", "redis_port", "redis_password", "redis_url", "redis_db", "cache_kwargs"),
        _REDIS,
    ),
    **dict.fromkeys(("cache_responses", "caching_groups", "client_ttl"), _CACHE),
    "stream_timeout": PARAMETERS["stream_timeout"],
    "enable_pre_call_checks": Told(
        NEEDLESS, "the engine refuses what is too long itself; nothing to do"
    ),
    **dict.fromkeys(("enable_tag_filtering", "tag_filtering_match_any"), PARAMETERS["tags"]),
    **dict.fromkeys(("default_max_parallel_requests", "provider_budget_config"), _LIMIT),
    "default_litellm_params": _DEFAULT,
    **dict.fromkeys(("set_verbose", "debug_level"), _LOGS),
    "alerting_config": _CALLBACK,
}  # fmt: skip
"""Of `router_settings`."""

LITELLM = {
    **dict.fromkeys(
        (
            "callbacks", "success_callback", "failure_callback", "service_callbacks",
            "langfuse_default_tags", "otel", "datadog_params", "alerting",
        ),
        _CALLBACK,
    ),
    **dict.fromkeys(
        (
            "set_verbose", "json_logs", "turn_off_message_logging", "redact_user_api_key_info",
            "log_raw_request_response", "suppress_debug_info", "telemetry",
        ),
        _LOGS,
    ),
    **dict.fromkeys(("cache", "cache_params", "enable_caching_on_provider_specific"), _CACHE),
    **dict.fromkeys(
        (
            "context_window_fallbacks", "content_policy_fallbacks", "allowed_fails",
        ),
        _FALLBACK,
    ),
    **dict.fromkeys(("num_retries", "retry_policy"), _RETRY),
    **dict.fromkeys(
        (
            "drop_params", "modify_params", "add_function_to_prompt",
            "enable_json_schema_validation", "set_default_params",
        ),
        _DEFAULT,
    ),
    **dict.fromkeys(("ssl_verify", "ssl_certificate"), _TLS),
    **dict.fromkeys(("max_budget", "budget_duration", "max_internal_user_budget"), _LIMIT),
    **dict.fromkeys(("max_end_user_budget", "internal_user_budget_duration"), _LIMIT),
    **dict.fromkeys(
        (
            "default_internal_user_params", "default_team_params", "default_team_settings",
            "key_generation_settings", "upperbound_key_generate_params",
            "default_key_generate_params",
        ),
        Told(LOST, "keys are made one by one; write them under `keys`"),
    ),
    **dict.fromkeys(("guardrails", "prompt_injection_params"), _GUARDRAIL),
    **dict.fromkeys(
        ("disable_end_user_cost_tracking", "disable_end_user_cost_tracking_prometheus_only"),
        _SPEND,
    ),
    "force_ipv4": Told(NEEDLESS, "both address families are tried; nothing to do"),
}  # fmt: skip
"""Of `litellm_settings`."""

GENERAL = {
    **dict.fromkeys(
        (
            "database_connection_pool_limit", "database_connection_timeout",
            "allow_requests_on_db_unavailable", "use_redis_transaction_buffer",
            "proxy_batch_write_at", "supported_db_objects",
        ),
        Told(NEEDLESS, "it is about LiteLLM's database; nothing to do"),
    ),
    "database_url": _DATABASE,
    "store_model_in_db": Told(
        LOST,
        "models that were added on LiteLLM's pages are in its database and not in this file; add "
        "them to model_list and import again",
    ),
    **dict.fromkeys(
        ("max_parallel_requests", "global_max_parallel_requests", "max_request_size_mb"), _LIMIT
    ),
    **dict.fromkeys(("infer_model_from_keys", "completion_model"), _DEFAULT),
    **dict.fromkeys(
        (
            "enable_jwt_auth", "litellm_jwtauth", "custom_auth", "enable_oauth2_auth",
            "enable_oauth2_proxy_auth", "custom_sso", "ui_access_mode",
        ),
        _LOGIN_OF_CALLERS,
    ),
    **dict.fromkeys(
        ("key_management_system", "key_management_settings"),
        Told(LOST, "secrets are read from variables and files; have the secret store write them"),
    ),
    **dict.fromkeys(("background_health_checks", "health_check_interval"), _HEALTH),
    "health_check_details": _HEALTH,
    **dict.fromkeys(("alerting", "alerting_threshold", "alert_types", "alerting_args"), _CALLBACK),
    **dict.fromkeys(
        (
            "disable_spend_logs", "disable_spend_updates", "disable_reset_budget",
            "store_prompts_in_spend_logs", "maximum_spend_logs_retention_period",
            "maximum_spend_logs_retention_interval",
        ),
        _SPEND,
    ),
    **dict.fromkeys(("allowed_routes", "public_routes", "admin_only_routes"), _ACCESS),
    "allowed_ips": Told(LOST, "addresses of callers are not checked; filter in front of Penstock"),
    "pass_through_endpoints": Told(LOST, "only the /v1 operations are relayed; keep another proxy"),
    "forward_client_headers_to_llm_api": Told(LOST,
        "only headers that are named are passed on; list them under forward_headers",
    ),
    "salt_key": Told(NEEDLESS, "it is for LiteLLM's database; nothing to do"),
    "proxy_base_url": Told(NEEDLESS, "it is for LiteLLM's own pages; nothing to do"),
    "disable_master_key_return": Told(NEEDLESS, "keys are never shown again; nothing to do"),
}  # fmt: skip
"""Of `general_settings`."""

SECTIONS = {
    "callback_settings": _CALLBACK,
    "guardrails": _GUARDRAIL,
    "include": Told(LOST, "files that are included are not read; import each of them as well"),
    "mcp_servers": Told(LOST, "tools are not served; keep LiteLLM or another server for them"),
    "environment_variables": Told(
        CHANGED,
        "values are not copied, they may be secrets; set the variables that penstock.yaml names "
        "in the environment of the agent",
    ),
}
"""Whole sections."""

_SECTION_TABLES = {
    "router_settings": (
        ROUTER,
        {"model_group_alias", "timeout", "fallbacks", "default_fallbacks"},
    ),
    "litellm_settings": (
        LITELLM,
        {"request_timeout", "model_alias_map", "fallbacks", "default_fallbacks"},
    ),
    "general_settings": (GENERAL, {"master_key"}),
}
"""By section: its table, and what is carried."""

_UNKNOWN = Told(LOST, "is not known to this import; look up what it does, and set it up by hand")
_COST = "cost_per_"
_PER_MILLION = Decimal(1_000_000)


def note_sections(file: Place, notes: Notes) -> None:
    """Say what becomes of every setting outside `model_list` and `credential_list`."""
    for section in file.members():
        if section.name in _SECTION_TABLES:
            table, carried = _SECTION_TABLES[section.name]
            note_members(section, table, carried, notes)
        elif section.name not in {"model_list", "credential_list"}:
            kind, problem = SECTIONS.get(section.name, _UNKNOWN)
            notes.add(kind, section, problem)


def note_parameters(parameters: Place, carried: set[str], notes: Notes) -> None:
    """Say what becomes of every member of a `litellm_params`."""
    note_members(parameters, PARAMETERS, carried, notes)


def note_model_info(information: Place, notes: Notes) -> None:
    """Say what becomes of every member of a `model_info`."""
    described = Told(NEEDLESS, "it describes the model to LiteLLM's own pages; nothing to do")
    note_members(information, MODEL_INFO, {"mode"}, notes, otherwise=described)


def note_members(
    place: Place,
    table: dict[str, Told],
    carried: set[str],
    notes: Notes,
    *,
    otherwise: Told = _UNKNOWN,
) -> None:
    """Say what becomes of every member of a mapping, but for those that are carried."""
    for member in place.members():
        if member.name in carried:
            continue
        kind, problem = table.get(member.name, otherwise)
        if _COST in member.name:
            kind, problem = _PRICE
        notes.add(kind, member, problem.replace("the figure", _shown(member) or "the figure"))


def _shown(place: Place) -> str:
    """Return a figure worth keeping. Texts are not shown: any of them may be a secret."""
    value = place.node.value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ""
    if _COST in place.name:
        return _price(place.name, value)
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _price(name: str, value: float) -> str:
    if not name.endswith("_per_token"):
        return f"{value:g}"
    return f"{(Decimal(repr(value)) * _PER_MILLION).normalize():f} for a million tokens"
