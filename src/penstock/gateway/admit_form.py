"""Step 3, admit, for forms: what the judged fields ask for. The rest passes, see `upload`."""

import msgspec

from penstock.gateway.admit import Admission, find_offer
from penstock.gateway.demand import Demand
from penstock.gateway.dialects.errors import MEMBER_INVALID, MEMBER_MISSING, OPERATION_UNSUPPORTED
from penstock.gateway.dialects.media import FORMATS
from penstock.gateway.dialects.openai import Operation
from penstock.gateway.errors import FIELD_TOO_LATE
from penstock.gateway.limits import (
    FORM_BYTES_PER_SOUND,
    FORM_FIELD_BYTES,
    INPUT_OVERHEAD_TOKENS,
    MEDIA_TOKENS,
)
from penstock.gateway.offer import Offer
from penstock.gateway.runtime import Principal, Runtime
from penstock.gateway.select import rank
from penstock.gateway.upload import Upload
from penstock.kit.errors import Refusal

_encode = msgspec.json.Encoder().encode
_SOUND_BYTES_PER_TEXT_BYTE = 400
"""For as many tokens; what others like it really used is learnt, see `estimate`."""
_FLAGS = {"true": True, "True": True, "1": True, "false": False, "False": False, "0": False}


def admit_form(
    runtime: Runtime, principal: Principal, operation: Operation, upload: Upload, size: int
) -> Admission | Refusal:
    """Decide whether a form may be sent, and to what.

    Args:
        runtime: What the worker serves from.
        principal: Who asks.
        operation: What for.
        upload: The form, as far as it is here: all of it, or as much as is held.
        size: Bytes that the body may have.
    """
    fields = upload.fields
    model = fields.get("model")
    if model is None:
        late = Refusal(FIELD_TOO_LATE, "The field 'model' must stand before the file.", "model")
        return Refusal(MEMBER_MISSING, param="model") if upload.is_complete else late
    if upload.is_complete and not upload.file_bytes:
        message = "The form has no file, or an empty one."
        return Refusal(MEMBER_MISSING, message, "file")
    is_stream = _FLAGS.get(fields.get("stream", "false"))
    if is_stream is None:
        return Refusal(MEMBER_INVALID, "The field 'stream' must be true or false.", "stream")
    wanted = fields.get("response_format", "json")
    if wanted not in FORMATS:
        message = f"The field 'response_format' must be one of {', '.join(sorted(FORMATS))}."
        return Refusal(MEMBER_INVALID, message, "response_format")
    offer = find_offer(runtime, principal, msgspec.Raw(_encode(model)))
    if isinstance(offer, Refusal):
        return offer
    turn = runtime.turn() if offer.has_choice else 0.0
    ranked = rank(offer.tiers, turn)
    target = next((each for each in ranked if each.upstream.engine.speaks_openai), None)
    if target is None:
        return Refusal(OPERATION_UNSUPPORTED)
    upload.decide(wanted, is_stream=is_stream)
    return Admission(
        operation,
        offer,
        turn,
        target,
        b"",
        upload.is_stream,
        hides_usage=upload.is_stream,
        strips_usage=False,
        estimated_input_tokens=0,
        demand=_demand(principal, offer, size),
        upload=upload,
    )


def _demand(principal: Principal, offer: Offer, size: int) -> Demand | None:
    """Return what limits and budgets are asked for; sound is no larger than what is sent of it."""
    quota = principal.quota
    if quota is None:
        return None
    sounds = -(-size // FORM_BYTES_PER_SOUND)
    most_input = sounds * MEDIA_TOKENS + FORM_FIELD_BYTES + INPUT_OVERHEAD_TOKENS
    is_for_money = bool(quota.budgets)
    return Demand(
        size // _SOUND_BYTES_PER_TEXT_BYTE,
        offer.max_output_tokens if is_for_money else None,
        1,
        most_input if is_for_money else 0,
        has_other_caps=False,
        can_be_capped=False,
    )
