"""Step 3, admit, for the Open Inference Protocol: what is asked for, and what is sent on."""

from functools import partial

import msgspec

from penstock.gateway.admit import Admission, check_numbers, demand_of, find_offer
from penstock.gateway.demand import NO_TOKENS, Demand
from penstock.gateway.dialects.errors import MEMBER_INVALID, MEMBER_MISSING, PROTOCOL_UNSUPPORTED
from penstock.gateway.dialects.members import Members, read_members
from penstock.gateway.dialects.oip import GENERATE_STREAM, INFER, READS, Call
from penstock.gateway.dialects.oip_tensors import (
    NOT_PASSED,
    NOT_PASSED_OF_URGENT,
    InferBody,
    flat_integers,
    flatten,
    isolate,
    read_infer,
)
from penstock.gateway.limits import BYTES_PER_TOKEN, CHOICES, INPUT_OVERHEAD_TOKENS
from penstock.gateway.offer import Offer, Target, offer_of
from penstock.gateway.priority import SCOPE
from penstock.gateway.runtime import Principal, Runtime
from penstock.gateway.select import rank
from penstock.kit.errors import Refusal

_CAP_TENSORS = ("max_tokens", "request_output_len")
_TIMES = ("beam_width", "num_return_sequences")
"""Inputs of TensorRT-LLM by which one request has several answers."""
_MOST_ROWS = 4_096
"""No server takes larger batches of text: a shape that says so is none."""
_NOT_PASSED = frozenset({"stop", "model_name", "request_output_len"})
"""What `generate` does not pass on: `stop` ends whichever request has this one's id, of whoever it
is, and text models know their most output as `max_tokens`, into which budgets write it."""

_decode_members = msgspec.json.Decoder(Members).decode
_encode = msgspec.json.Encoder().encode


def admit_call(
    runtime: Runtime, principal: Principal, call: Call, body: bytes, length: bytes | None
) -> Admission | Refusal:
    """Decide whether a request may be sent, and to what.

    Args:
        runtime: What the worker serves from.
        principal: Who asks.
        call: What for.
        body: The whole body.
        length: `Inference-Header-Content-Length`, if it was sent.
    """
    found = find_offer(runtime, principal, call.model)
    offer = found if isinstance(found, Refusal) else _that_speaks(found)
    if isinstance(offer, Refusal):
        return offer
    turn = runtime.turn() if offer.has_choice else 0.0
    pseudonym = partial(runtime.pseudonym, principal.organization)
    admission = partial(
        Admission, call.operation, offer, turn, hides_usage=False, strips_usage=False, call=call
    )
    if call.operation in READS:
        demand = None if principal.quota is None else NO_TOKENS
        return admission(offer.first, b"", False, estimated_input_tokens=0, demand=demand)  # noqa: FBT003
    if call.operation is INFER:
        infer = read_infer(body, length, pseudonym, not_passed(principal))
        if isinstance(infer, Refusal):
            return infer
        refusal = check_infer(infer, offer.max_output_tokens)
        return refusal or admission(
            next(rank(offer.tiers, turn)),
            infer.content,
            False,  # noqa: FBT003 - by place, as above
            estimated_input_tokens=infer.text_bytes // BYTES_PER_TOKEN,
            demand=infer_demand(principal, infer, offer.max_output_tokens),
            json_bytes=infer.json_bytes,
        )
    members = _read_generate(body, pseudonym)
    if isinstance(members, Refusal):
        return members
    times = check_numbers(members, offer.max_output_tokens, offer.most_choices) or _times(members)
    if isinstance(times, Refusal):
        return times
    demand = demand_of(principal, call.operation, members, body, offer.max_output_tokens)
    if demand is not None and times > 1:
        demand = msgspec.structs.replace(demand, answers=demand.answers * times, kind=0)
    return admission(
        next(target for target in rank(offer.tiers, turn) if _takes(target, members)),
        _encode(members),
        call.operation is GENERATE_STREAM,
        estimated_input_tokens=len(body) // BYTES_PER_TOKEN,
        demand=demand,
    )


def not_passed(principal: Principal) -> frozenset[str]:
    """Return which parameters of a request to infer are taken out of it."""
    return NOT_PASSED_OF_URGENT if SCOPE in principal.scopes else NOT_PASSED


def takes_call(admission: Admission, target: Target) -> bool:
    """Return whether an admitted request may be sent to another target of its offer."""
    if admission.operation in READS or admission.operation is INFER:
        return True
    return _takes(target, _decode_members(admission.body))


def _takes(target: Target, members: Members) -> bool:
    return check_numbers(members, target.deployment.max_output_tokens, target.most_choices) is None


def _that_speaks(offer: Offer) -> Offer | Refusal:
    """Return what of an offer is served by this protocol."""
    tiers = [
        tuple(target for target in tier if target.upstream.engine.speaks_oip)
        for tier in offer.tiers
    ]
    left = tuple(tier for tier in tiers if tier)
    if left == offer.tiers:
        return offer
    return offer_of(left, is_complete=True) if left else Refusal(PROTOCOL_UNSUPPORTED)


def _read_generate(body: bytes, pseudonym: partial[bytes]) -> Members | Refusal:
    found = read_members(body)
    members = found if isinstance(found, Refusal) else flatten(found)
    if isinstance(members, Refusal):
        return members
    isolate(members, pseudonym)
    for name in _NOT_PASSED.intersection(members):
        del members[name]
    if not bytes(members.get("text_input", b"")).startswith((b'"', b"[")):
        return Refusal(MEMBER_MISSING, "The member 'text_input' must be text.", "text_input")
    return members


def _times(members: Members) -> int | Refusal:
    """Return how many answers one request wants."""
    times = 1
    for name in _TIMES:
        numbers = flat_integers(members.get(name, msgspec.Raw(b"1")))
        if not _are_within(numbers, CHOICES):
            message = f"The member '{name}' must be whole numbers from 1 to {CHOICES}."
            return Refusal(MEMBER_INVALID, message, name)
        times = max(times, *numbers)
    return times


def check_infer(infer: InferBody, most: int) -> Refusal | None:
    """Refuse more output tokens or answers than are given, and what cannot be read as a number."""
    bounds = dict.fromkeys(_CAP_TENSORS, most) | dict.fromkeys(_TIMES, CHOICES)
    for name, highest in bounds.items():
        numbers = infer.integers(name)
        if numbers is not None and not _are_within(numbers, highest):
            message = f"The input '{name}' must be whole numbers from 1 to {highest}."
            return Refusal(MEMBER_INVALID, message, "inputs")
    return None


def _are_within(numbers: list[int], highest: int) -> bool:
    return bool(numbers) and 1 <= min(numbers) <= max(numbers) <= highest


def infer_demand(principal: Principal, infer: InferBody, most: int) -> Demand | None:
    """Return what a request to infer asks for: only text has tokens."""
    if principal.quota is None:
        return None
    text = infer.text_bytes
    if not text:
        return NO_TOKENS
    caps = [number for name in _CAP_TENSORS for number in infer.integers(name) or ()]
    times = [number for name in _TIMES for number in infer.integers(name) or ()]
    return Demand(
        text,
        max(caps, default=most),
        min(max(len(caps), infer.rows), _MOST_ROWS) * max(times, default=1),
        text + INPUT_OVERHEAD_TOKENS,
        has_other_caps=False,
        can_be_capped=False,
    )
