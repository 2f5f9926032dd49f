"""What nodes may say of holds: pure, no clock, no I/O."""

from collections.abc import Iterable, Iterator

from penstock.contract.money import FreeRequest, HoldRequest

MAX_ASKS = 16
MAX_FREED = 5_000
MAX_TEXT_CHARS = 256
_MAX_NUMBER = 2**63 - 1


def find_hold_fault(request: HoldRequest) -> str | None:
    """Return what is wrong with a taking, as a sentence; None for nothing."""
    return next(_hold_faults(request), None)


def find_free_fault(request: FreeRequest) -> str | None:
    """Return what is wrong with what is given back, as a sentence; None for nothing."""
    return next(_free_faults(request), None)


def _hold_faults(request: HoldRequest) -> Iterator[str]:
    asks = request.asks
    if not 0 < len(asks) <= MAX_ASKS:
        yield f"It asks for {len(asks)} holds; 1 to {MAX_ASKS} are possible."
    if len({(ask.budget, ask.subject) for ask in asks}) < len(asks):
        yield "It asks for something twice."
    if any(ask.want < ask.least for ask in asks):
        yield "It wants less than it needs at least."
    named = [request.producer, request.take_id, request.organization]
    named += [ask.budget for ask in asks]
    yield from _faults(request.format, named, [ask.subject for ask in asks])
    yield from _number_faults(request.epoch, *(ask.least for ask in asks))
    yield from _number_faults(*(ask.want for ask in asks))


def _free_faults(request: FreeRequest) -> Iterator[str]:
    if len(request.freed) > MAX_FREED:
        yield f"It frees {len(request.freed)} holds; at most {MAX_FREED} are possible."
    # What nothing was held for has no name, and is given back all the same.
    yield from _faults(request.format, [request.producer], [hold for hold, _ in request.freed])
    yield from _number_faults(request.epoch, *(amount for _, amount in request.freed))


def _faults(form: int, named: list[str], optional: Iterable[str]) -> Iterator[str]:
    if form != 1:
        yield "It has another format than 1."
    if "" in named:
        yield "A text in it is empty."
    if any(len(text) > MAX_TEXT_CHARS or "\0" in text for text in (*named, *optional)):
        yield "A text in it is too long or has a NUL character."


def _number_faults(*numbers: int) -> Iterator[str]:
    if not all(0 <= number <= _MAX_NUMBER for number in numbers):
        yield "A number in it is negative or over 63 bits."
