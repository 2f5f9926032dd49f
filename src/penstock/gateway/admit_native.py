"""Step 3, admit, for Anthropic's Messages and OpenAI's Responses: sent on as they are, or not.

As `admit` does; but only engines that speak the protocol are asked, nothing is kept there, and
usage is in each answer without being asked for.
"""

import msgspec

from penstock.gateway.admit import (
    Admission,
    address,
    address_anew,
    check_question,
    find_offer,
    isolate,
    read_flag,
    session_of,
)
from penstock.gateway.demand import NO_TOKENS, Demand, kind_of, worst_input_tokens
from penstock.gateway.dialects.errors import (
    MEMBER_INVALID,
    MEMBER_MISSING,
    OPERATION_UNSUPPORTED,
)
from penstock.gateway.dialects.kept import check_kept, survey
from penstock.gateway.dialects.members import Members, read_members
from penstock.gateway.dialects.messages import MESSAGES
from penstock.gateway.dialects.openai import CAP_MEMBERS, UNKNOWN_CAPS, Operation
from penstock.gateway.dialects.responses import RESPONSES
from penstock.gateway.limits import BYTES_PER_TOKEN
from penstock.gateway.offer import Offer, Target
from penstock.gateway.runtime import Principal, Runtime
from penstock.gateway.select import rank
from penstock.kit.errors import Refusal

_decode_members = msgspec.json.Decoder(Members).decode
_decode_cap = msgspec.json.Decoder(int | None).decode
_encode = msgspec.json.Encoder().encode
_NOT_STORED = msgspec.Raw(b"false")
_NOT_SPOKEN = Refusal(OPERATION_UNSUPPORTED)
_OTHERS_CAPS = UNKNOWN_CAPS.union(CAP_MEMBERS, ("max_output_tokens", "n", "best_of"))
"""Members of other protocols by which some engine lets the output be longer, or more."""


def admit_native(
    runtime: Runtime, principal: Principal, operation: Operation, body: bytes
) -> Admission | Refusal:
    """Decide whether a request may be sent, and to what; see `admit`.

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
    for name in _OTHERS_CAPS.intersection(members) - {operation.cap_member}:
        del members[name]
    refusal = check_question(members, operation) or check_kept(members)
    if refusal is not None:
        return refusal
    media = survey(members, operation)
    if isinstance(media, Refusal):
        return media
    turn = runtime.turn() if offer.has_choice else 0.0
    target = _choose(offer, turn, members, operation)
    if isinstance(target, Refusal):
        return target
    is_stream = operation.can_stream and read_flag(members, "stream")
    if isinstance(is_stream, Refusal):
        return is_stream
    demand = _demand_of(principal, operation, members, len(body), media)
    metadata, session = members.get("metadata"), session_of(members)
    user = _hide_user(members, operation, runtime, principal)
    if isinstance(user, Refusal):
        return user
    priority = isolate(members, runtime, principal)
    if operation is RESPONSES:
        members["store"] = _NOT_STORED
    address(members, target, priority)
    return Admission(
        operation,
        offer,
        turn,
        target,
        _encode(members),
        is_stream,
        hides_usage=False,
        strips_usage=False,
        estimated_input_tokens=len(body) // BYTES_PER_TOKEN if operation.has_usage else 0,
        demand=demand,
        metadata=metadata,
        priority=priority,
        session=session or user,
        prefix=runtime.read_prefix(principal, operation, members) if offer.is_spread else None,
    )


def readdress_native(admission: Admission, target: Target) -> Admission | None:
    """Return an admitted request as it is sent to another target; None when that does not take it.

    Args:
        admission: As it is sent to its target.
        target: Another one of its offer.
    """
    members = _decode_members(admission.body)
    if _check_target(members, admission.operation, target) is not None:
        return None
    address_anew(members, admission, target)
    return msgspec.structs.replace(admission, target=target, body=_encode(members))


def write_native_cap(body: bytes, operation: Operation, cap: int) -> bytes:
    """Return a body that asks for so many output tokens at most."""
    members = _decode_members(body)
    members[operation.cap_member] = msgspec.Raw(b"%d" % cap)
    return _encode(members)


def _choose(offer: Offer, turn: float, members: Members, operation: Operation) -> Target | Refusal:
    """Return the first target that takes the request, or why those do not that speak it."""
    why: Refusal = _NOT_SPOKEN
    for target in rank(offer.tiers, turn):
        refusal = _check_target(members, operation, target)
        if refusal is None:
            return target
        why = why if refusal is _NOT_SPOKEN else refusal
    return why


def _check_target(members: Members, operation: Operation, target: Target) -> Refusal | None:
    engine = target.upstream.engine
    is_spoken = engine.speaks_responses if operation is RESPONSES else engine.speaks_messages
    if not is_spoken:
        return _NOT_SPOKEN
    return _check_cap(members, operation, target.deployment.max_output_tokens)


def _check_cap(members: Members, operation: Operation, most: int) -> Refusal | None:
    """Refuse more output tokens than are given, and none where their number has to be there."""
    name = operation.cap_member
    if not name:
        return None
    raw = members.get(name)
    if raw is None or bytes(raw) == b"null":
        if operation.needs_cap:
            return Refusal(MEMBER_MISSING, f"The member '{name}' is missing.", name)
        return None
    try:
        value = _decode_cap(raw) or 0
    except msgspec.DecodeError:
        value = 0
    if 1 <= value <= most:
        return None
    message = f"The member '{name}' must be a whole number from 1 to {most}."
    return Refusal(MEMBER_INVALID, message, name)


def _demand_of(
    principal: Principal, operation: Operation, members: Members, body_bytes: int, media: int
) -> Demand | None:
    """Return what limits and budgets are asked for; None when the principal has none."""
    quota = principal.quota
    if quota is None:
        return None
    if not operation.has_usage:
        return NO_TOKENS
    most_input = worst_input_tokens(members, body_bytes, media) if quota.budgets else 0
    raw = members.get(operation.cap_member)
    cap = None if raw is None else _decode_cap(raw)
    kind = kind_of(most_input or body_bytes, cap, 1)
    return Demand(body_bytes, cap, 1, most_input, has_other_caps=False, kind=kind)


def _hide_user(
    members: Members, operation: Operation, runtime: Runtime, principal: Principal
) -> msgspec.Raw | Refusal | None:
    """Put a pseudonym where Anthropic's callers name their own user; return whom they named."""
    raw = members.get("metadata")
    if raw is None or bytes(raw) == b"null" or operation is not MESSAGES:
        return None
    try:
        metadata = _decode_members(raw)
    except (msgspec.DecodeError, RecursionError):
        return Refusal(MEMBER_INVALID, "The member 'metadata' must be an object.", "metadata")
    user = metadata.get("user_id")
    if user is None or bytes(user) == b"null":
        return None
    name = runtime.pseudonym(principal.organization, bytes(user))
    metadata["user_id"] = msgspec.Raw(b'"%b"' % name)
    members["metadata"] = msgspec.Raw(_encode(metadata))
    return user
