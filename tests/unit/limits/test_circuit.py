"""When the shared authority is asked, how many share, and what is owed to it."""

import pytest

from penstock.contract.limits import Bucket
from penstock.limits.circuit import ABSENT_S, CALM_LOOKS, Circuit, LiveNodes
from penstock.limits.debts import MAX_DEBTS, Debts

BUCKET = Bucket("org/requests:k.key", 10, 500, 121)


def test_the_first_good_look_closes_it() -> None:
    """A node that starts asks the server once it is known to be well; before it knows nothing."""
    circuit = Circuit()
    assert not circuit.is_open
    assert not circuit.is_closed
    assert circuit.look_well()
    assert circuit.is_closed


def test_waiting_in_vain_opens_it() -> None:
    """Who waits for a second in all, without one answer, knows that nobody is there; once."""
    circuit = Circuit()
    circuit.look_well()
    steps = int(ABSENT_S / 0.25)
    assert not any(circuit.fail(0.25, step * 0.3) for step in range(1, steps))
    assert circuit.is_closed
    assert circuit.fail(0.25, steps * 0.3)
    assert circuit.is_open
    assert not circuit.fail(0.25, 9.0)


def test_an_answer_in_time_begins_anew() -> None:
    """As long as answers come now and then nobody is away, however many do not."""
    circuit = Circuit()
    circuit.look_well()
    for second in range(20):
        assert not circuit.fail(ABSENT_S * 0.9, second * 2.0)
        circuit.succeed()
    assert circuit.is_closed


def test_waiting_at_the_same_time_counts_once() -> None:
    """A hundred that wait for the same quarter of a second have waited that long."""
    circuit = Circuit()
    circuit.look_well()
    assert not any(circuit.fail(0.25, 1.0 + number / 1_000) for number in range(100))
    assert circuit.is_closed


def test_a_pause_of_ones_own_does_not_count() -> None:
    """Only what was waited counts, not the time between questions."""
    circuit = Circuit()
    circuit.look_well()
    assert not any(circuit.fail(0.25, at_s) for at_s in (1.0, 100.0, 200.0))
    assert circuit.is_closed


@pytest.mark.parametrize("has_worked", [False, True])
def test_after_it_was_open_it_stays_so_for_a_while(*, has_worked: bool) -> None:
    """When the server is back, all nodes have time to tell it what they gave without it."""
    circuit = Circuit()
    if has_worked:
        circuit.look_well()
    circuit.open()
    circuit.look_well()
    circuit.fail(0.25, 1.0)
    circuit.succeed()
    looks = [circuit.look_well() for _ in range(CALM_LOOKS)]
    assert looks == [False] * (CALM_LOOKS - 1) + [True]


def test_nodes_count_on_for_a_minute() -> None:
    """When fewer nodes are seen, the most of the last minute count; when more, they do at once."""
    nodes = LiveNodes(memoryview(bytearray(16)).cast("q"))
    assert nodes.count == 0
    nodes.see(3, 1_000)
    nodes.see(1, 2_000)
    assert nodes.count == 3
    nodes.see(4, 3_000)
    assert nodes.count == 4
    nodes.see(2, 63_001)
    assert nodes.count == 2


def test_what_is_given_back_is_not_owed() -> None:
    """Of what is owed a return is taken off; what goes beyond it is for the server."""
    debts = Debts()
    assert debts.add(BUCKET, 7, 5) == 0
    assert debts.add(BUCKET, 7, -2) == 0
    assert debts.add(BUCKET, 7, -4) == -1
    assert len(debts) == 0
    assert debts.add(BUCKET, 8, -3) == -3


def test_what_does_not_count_any_more_is_not_owed() -> None:
    """A debt whose sub-window is long over is not told."""
    debts = Debts()
    debts.add(BUCKET, 1_000, 5)
    debts.add(BUCKET, 1_122, 6)
    taken = debts.take(10, 1_122 * 500)
    assert [(lease.sub_window, lease.amount) for _, lease in taken] == [(1_122, 6)]
    assert len(debts) == 0


def test_debts_have_a_bound() -> None:
    """Very many are owed in fewer places, where they count no shorter; no amount is lost."""
    debts = Debts()
    count = MAX_DEBTS + 10
    for number in range(count):
        debts.add(Bucket(f"org/r:{number % 100}", 10, 500, 121), 1_000 + number // 100, 1)
    assert len(debts) <= MAX_DEBTS
    taken = debts.take(count, 0)
    assert sum(lease.amount for _, lease in taken) == count
    assert max(lease.sub_window for _, lease in taken) == 1_000 + (count - 1) // 100
