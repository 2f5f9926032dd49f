"""Step 3, admit, for the Open Inference Protocol over gRPC: the same rules as over HTTP."""

from functools import partial

from penstock.gateway.admit import Admission, find_offer
from penstock.gateway.admit_oip import check_infer, infer_demand, not_passed
from penstock.gateway.demand import NO_TOKENS
from penstock.gateway.dialects.errors import GRPC_UNSUPPORTED
from penstock.gateway.dialects.grpc import PREFIX_BYTES
from penstock.gateway.dialects.oip import READS, make_call
from penstock.gateway.dialects.oip_grpc import ModelName, read_infer_message, read_name
from penstock.gateway.dialects.openai import Operation
from penstock.gateway.limits import BYTES_PER_TOKEN
from penstock.gateway.offer import Offer
from penstock.gateway.runtime import Principal, Runtime
from penstock.gateway.select import rank
from penstock.kit.errors import Refusal

_UNSUPPORTED = Refusal(GRPC_UNSUPPORTED)


def admit_message(
    runtime: Runtime, principal: Principal, operation: Operation, message: bytes
) -> Admission | Refusal:
    """Decide whether a message may be sent, and to what.

    Args:
        runtime: What the worker serves from.
        principal: Who asks.
        operation: What for.
        message: All of it, behind what frames it.
    """
    if operation in READS:
        return _admit_read(runtime, principal, operation, message)
    pseudonym = partial(runtime.pseudonym, principal.organization)
    infer = read_infer_message(message, PREFIX_BYTES, pseudonym, not_passed(principal))
    if isinstance(infer, Refusal):
        return infer
    offer = _find_offer(runtime, principal, infer.name)
    if isinstance(offer, Refusal):
        return offer
    call = make_call(operation, infer.name.model, infer.name.version)
    if isinstance(call, Refusal):
        return call
    refusal = check_infer(infer.body, offer.max_output_tokens)
    if refusal is not None:
        return refusal
    turn = runtime.turn() if offer.has_choice else 0.0
    return Admission(
        operation,
        offer,
        turn,
        next(rank(offer.tiers, turn)),
        infer.body.content,
        operation.can_stream,
        hides_usage=False,
        strips_usage=False,
        estimated_input_tokens=infer.body.text_bytes // BYTES_PER_TOKEN,
        demand=infer_demand(principal, infer.body, offer.max_output_tokens),
        call=call,
    )


def _admit_read(
    runtime: Runtime, principal: Principal, operation: Operation, message: bytes
) -> Admission | Refusal:
    name = read_name(message, PREFIX_BYTES)
    if isinstance(name, Refusal):
        return name
    offer = _find_offer(runtime, principal, name)
    if isinstance(offer, Refusal):
        return offer
    call = make_call(operation, name.model, name.version)
    if isinstance(call, Refusal):
        return call
    return Admission(
        operation,
        offer,
        runtime.turn() if offer.has_choice else 0.0,
        offer.first,
        b"",
        is_stream=False,
        hides_usage=False,
        strips_usage=False,
        estimated_input_tokens=0,
        demand=None if principal.quota is None else NO_TOKENS,
        call=call,
    )


def _find_offer(runtime: Runtime, principal: Principal, name: ModelName) -> Offer | Refusal:
    found = find_offer(runtime, principal, name.model)
    if isinstance(found, Refusal):
        return found
    return found.by_grpc or _UNSUPPORTED
