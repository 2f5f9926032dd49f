"""Step 3, admit: what is asked for, whether this key may have it, and the body that is sent on.

The body is split into its top-level members and put together again: duplicate members are gone,
so that the engine reads exactly what was judged here. Members nobody here knows pass untouched;
those that would steer an engine do not pass (ADR 28).
"""

import re

import msgspec

from penstock.engines.isolation import ALWAYS_OURS, IDENTIFYING, STEERING
from penstock.gateway.demand import NO_TOKENS, Demand, read_demand
from penstock.gateway.dialects.errors import (
    MEMBER_INVALID,
    MEMBER_MISSING,
    MODEL_NOT_FOUND,
    OPERATION_UNSUPPORTED,
)
from penstock.gateway.dialects.members import Members, read_members
from penstock.gateway.dialects.oip import Call
from penstock.gateway.dialects.openai import Operation
from penstock.gateway.dialects.translate import check_sayable
from penstock.gateway.limits import BYTES_PER_TOKEN
from penstock.gateway.offer import Offer, Target
from penstock.gateway.prefix import Prefix
from penstock.gateway.priority import erase_priority, read_priority, write_priority
from penstock.gateway.runtime import Principal, Runtime
from penstock.gateway.select import rank
from penstock.gateway.upload import Upload
from penstock.kit.errors import Refusal

_decode_members = msgspec.json.Decoder(Members).decode
_decode_int = msgspec.json.Decoder(int).decode
_encode = msgspec.json.Encoder().encode

_NO_MODEL = Refusal(MEMBER_MISSING, "The member 'model' is missing.", "model")
_UNKNOWN_MODEL = Refusal(MODEL_NOT_FOUND, param="model")
_UNSPOKEN = Refusal(OPERATION_UNSUPPORTED)
_INCLUDE_USAGE = msgspec.Raw(b'{"include_usage":true}')
_CONTINUOUS_USAGE = msgspec.Raw(b'{"include_usage":true,"continuous_usage_stats":true}')
_NOT_PASSED = STEERING.union(IDENTIFYING)
_SESSIONS = ("prompt_cache_key", "user")
"""The first one that says something counts."""
_EMPTY = re.compile(rb'null|""|\[[ \t\r\n]*\]')
STEER_SCOPE = "inference:steer"


class Admission(msgspec.Struct, frozen=True, gc=False):
    """A request that may be sent to an engine."""

    operation: Operation
    offer: Offer
    turn: float
    """Which of its targets come first, where there is a choice; see `select.rank`."""
    target: Target
    """The one that the body is written for."""
    body: bytes
    is_stream: bool
    hides_usage: bool
    """The caller did not ask for the usage chunk that the engine is asked for."""
    strips_usage: bool
    """Nor for the usage in every chunk."""
    estimated_input_tokens: int
    demand: Demand | None = None
    """What limits and budgets are asked for; None when the principal has none."""
    metadata: msgspec.Raw | None = None
    """What the caller says of the request, as JSON."""
    call: Call | None = None
    """By the Open Inference Protocol; None for OpenAI's."""
    json_bytes: int | None = None
    """How much of the body is JSON, where bytes of tensors follow it."""
    upload: Upload | None = None
    """The form that it is, if so; `body` is empty then."""
    priority: int = 0
    """On the scale of `gateway.priority`."""
    session: msgspec.Raw | None = None
    """What its body says that it belongs together with, as JSON."""
    prefix: Prefix | None = None
    """How its prompt begins, where that decides to which endpoint it goes."""


def admit(
    runtime: Runtime, principal: Principal, operation: Operation, body: bytes
) -> Admission | Refusal:
    """Decide whether a request may be sent, and to what.

    Reads no clock and waits for nothing; the snapshot's records are in memory.

    Args:
        runtime: What the worker serves from.
        principal: Who asks.
        operation: What for.
        body: The whole body.
    """
    members = read_members(body)
    if isinstance(members, Refusal):
        return members
    offer = find_offer(runtime, principal, members.get("model"))
    if isinstance(offer, Refusal):
        return offer
    refusal = check_question(members, operation)
    if refusal is not None:
        return refusal
    turn = runtime.turn() if offer.has_choice else 0.0
    target = _choose(offer, turn, members, operation)
    if isinstance(target, Refusal):
        return target
    is_stream = read_flag(members, "stream")
    if isinstance(is_stream, Refusal):
        return is_stream
    hides_usage = strips_usage = False
    if is_stream:
        asked = _ask_for_usage(members, operation, target)
        if isinstance(asked, Refusal):
            return asked
        hides_usage, strips_usage = asked
    elif "stream_options" in members:
        options = _stream_options(members["stream_options"])
        if isinstance(options, Refusal):
            return options
    demand = demand_of(principal, operation, members, body, offer.max_output_tokens)
    session = session_of(members)
    priority = isolate(members, runtime, principal)
    address(members, target, priority)
    estimated = len(body) // BYTES_PER_TOKEN if operation.has_usage else 0
    return Admission(
        operation,
        offer,
        turn,
        target,
        _encode(members),
        is_stream,
        hides_usage,
        strips_usage,
        estimated,
        demand,
        members.get("metadata"),
        priority=priority,
        session=session,
        prefix=runtime.read_prefix(principal, operation, members) if offer.is_spread else None,
    )


def readdress(admission: Admission, target: Target) -> Admission | None:
    """Return an admitted request as it is sent to another target of its offer.

    Returns:
        None when that one does not take it: it asks for more output than the deployment gives, or
        for more choices than its engine answers.
    """
    members = _decode_members(admission.body)
    if _check_target(members, admission.operation, target) is not None:
        return None
    address_anew(members, admission, target)
    strips_usage = False
    if admission.is_stream:
        options = _decode_members(members["stream_options"])
        if admission.strips_usage:
            del options["continuous_usage_stats"]  # was for the target before
        if target.deployment.continuous_usage:
            strips_usage = not _is_true(options, "continuous_usage_stats")
            options["continuous_usage_stats"] = msgspec.Raw(b"true")
        members["stream_options"] = msgspec.Raw(_encode(options))
    return msgspec.structs.replace(
        admission, target=target, body=_encode(members), strips_usage=strips_usage
    )


def session_of(members: Members) -> msgspec.Raw | None:
    """Return the text by which a caller says what belongs together, if it does."""
    for name in _SESSIONS:
        session = members.get(name)
        if session is not None and bytes(session).startswith(b'"') and bytes(session) != b'""':
            return session
    return None


def address(members: Members, target: Target, priority: int) -> None:
    """Write down for whom a request is: the model, the cache, and how urgent it is there."""
    members["model"] = target.model
    if target.cache_salt is not None:
        members["cache_salt"] = target.cache_salt
    if priority:
        write_priority(members, priority, target.upstream.priority)


def address_anew(members: Members, admission: Admission, target: Target) -> None:
    """Write down that a request goes to another target than it was addressed to."""
    members.pop("cache_salt", None)
    erase_priority(members, admission.priority, admission.target.upstream.priority)
    address(members, target, admission.priority)


def isolate(members: Members, runtime: Runtime, principal: Principal) -> int:
    """Take out what would steer the engine, and names of persons; return how urgent it is."""
    if _NOT_PASSED.isdisjoint(members):
        return 0
    may_steer = STEER_SCOPE in principal.scopes  # and says it in the engine's own words
    steering = ALWAYS_OURS if may_steer else STEERING
    priority = 0 if may_steer else read_priority(members, principal.scopes)
    for name in steering.intersection(members):
        del members[name]
    for name in IDENTIFYING:
        raw = members.get(name)
        if raw is None or bytes(raw) == b"null":
            continue
        members[name] = msgspec.Raw(b'"%b"' % runtime.pseudonym(principal.organization, bytes(raw)))
    return priority


def _choose(offer: Offer, turn: float, members: Members, operation: Operation) -> Target | Refusal:
    """Return the first target that takes the request, or why none does."""
    refusal = check_numbers(members, offer.max_output_tokens, offer.most_choices)
    if refusal is not None:
        return refusal
    if not offer.has_choice:  # it has all of the offer's bounds
        return _check_form(members, operation, offer.first) or offer.first
    for target in rank(offer.tiers, turn):
        refusal = _check_target(members, operation, target)
        if refusal is None:
            return target
    return refusal or offer.first


def _check_target(members: Members, operation: Operation, target: Target) -> Refusal | None:
    most, choices = target.deployment.max_output_tokens, target.most_choices
    return check_numbers(members, most, choices) or _check_form(members, operation, target)


def _check_form(members: Members, operation: Operation, target: Target) -> Refusal | None:
    """Refuse what cannot be put into the words of a target that does not speak this protocol."""
    engine = target.upstream.engine
    if engine.speaks_openai:
        return None
    return check_sayable(members, operation) if engine.speaks_oip else _UNSPOKEN


def demand_of(
    principal: Principal, operation: Operation, members: Members, body: bytes, most: int
) -> Demand | None:
    """Return what limits and budgets are asked for; None when the principal has none.

    Args:
        principal: Who asks.
        operation: What for.
        members: Of the body.
        body: All of it.
        most: Output tokens that are given at most, for each answer.
    """
    quota = principal.quota
    if quota is None:
        return None
    if not operation.has_usage:
        return NO_TOKENS
    is_for_money = bool(quota.budgets)
    demand = read_demand(members, operation, len(body), is_for_money=is_for_money)
    if operation.is_media:  # no member names a cap: the worst case is the model's
        cap = most if is_for_money else None
        return msgspec.structs.replace(demand, cap=cap, kind=0, can_be_capped=False)
    return demand


def find_offer(
    runtime: Runtime, principal: Principal, model: msgspec.Raw | None
) -> Offer | Refusal:
    """Return where requests for an alias, as JSON, may go."""
    if model is None:
        return _NO_MODEL
    try:
        offer = runtime.find_offer(principal, model)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Refusal(MEMBER_INVALID, "The member 'model' must be a string.", "model")
    return _UNKNOWN_MODEL if offer is None else offer


def check_question(members: Members, operation: Operation) -> Refusal | None:
    """Refuse a question that is not there, empty, or of a type that no engine takes."""
    name, form = operation.input_member, operation.input_form
    if form is None:
        return None
    question = members.get(name)
    if question is not None:
        if form.match(question) is not None:
            return None
        if _EMPTY.fullmatch(question) is None:
            message = f"The member '{name}' must be {operation.input_type}."
            return Refusal(MEMBER_INVALID, message, name)
    return Refusal(MEMBER_MISSING, f"The member '{name}' is missing or empty.", name)


def check_numbers(members: Members, max_output_tokens: int, most_choices: int) -> Refusal | None:
    """Refuse more output tokens or answers than are given."""
    for name in ("max_tokens", "max_completion_tokens", "n", "best_of"):
        raw = members.get(name)
        if raw is None or bytes(raw) == b"null":
            continue
        highest = max_output_tokens if name.startswith("max") else most_choices
        try:
            value = _decode_int(raw)
        except msgspec.DecodeError:
            value = 0
        if not 1 <= value <= highest:
            message = f"The member '{name}' must be a whole number from 1 to {highest}."
            return Refusal(MEMBER_INVALID, message, name)
    return None


def read_flag(members: Members, name: str) -> bool | Refusal:
    """Return whether a member is true; one that is absent or null is not."""
    raw = members.get(name)
    if raw is None:
        return False
    match bytes(raw):
        case b"true":
            return True
        case b"false" | b"null":
            return False
        case _:
            return Refusal(MEMBER_INVALID, f"The member '{name}' must be true or false.", name)


def _ask_for_usage(
    members: Members, operation: Operation, target: Target
) -> tuple[bool, bool] | Refusal:
    """Make the engine report usage in its stream; return what of it the caller must not see."""
    if not operation.can_stream:
        return Refusal(MEMBER_INVALID, "This operation cannot stream.", "stream")
    is_continuous = target.deployment.continuous_usage
    raw = members.get("stream_options")
    if raw is None or bytes(raw) == b"null":
        members["stream_options"] = _CONTINUOUS_USAGE if is_continuous else _INCLUDE_USAGE
        return True, is_continuous
    options = _stream_options(raw)
    if isinstance(options, Refusal):
        return options
    wants_usage = _is_true(options, "include_usage")
    wants_continuous = _is_true(options, "continuous_usage_stats")
    options["include_usage"] = msgspec.Raw(b"true")
    if is_continuous:
        options["continuous_usage_stats"] = msgspec.Raw(b"true")
    members["stream_options"] = msgspec.Raw(_encode(options))
    return not wants_usage, is_continuous and not wants_continuous


def _stream_options(raw: msgspec.Raw) -> Members | Refusal:
    """Return the members of `stream_options`, the ones that we know checked."""
    if bytes(raw) == b"null":
        return {}
    try:
        options = _decode_members(raw)
    except (msgspec.DecodeError, RecursionError):
        message = "The member 'stream_options' must be an object."
        return Refusal(MEMBER_INVALID, message, "stream_options")
    for name in ("include_usage", "continuous_usage_stats"):
        flag = read_flag(options, name)
        if isinstance(flag, Refusal):
            return flag
    return options


def _is_true(members: Members, name: str) -> bool:
    return bytes(members.get(name, b"")) == b"true"
