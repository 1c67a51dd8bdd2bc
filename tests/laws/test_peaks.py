"""What an operation takes at its peak is bounded by what was asked for before: its operands, its result, and the room
that its kernel asked for."""

from __future__ import annotations

import pytest

from tests.laws.harness import operations
from tests.laws.peaks import measure

# Working memory is counted in elements of 8 bytes: indices and accumulators are that wide, whatever the dtype.
FACTOR = 10
OBJECT = 500  # bytes of Python for each tensor
ROOM = 1 << 20  # for what does not grow with the operands
# Kernels that work in pieces of a fixed size, larger than the room.
PIECES = {
    "cdist": 3 * (4 << 22),  # distances._PIECE elements, thrice
    "nn.functional.pdist": 3 * (4 << 22),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", operations())
def test_the_peak_is_bounded_by_what_was_asked_for(name: str) -> None:
    for took in measure(name):
        asked = max(took.admitted, 0) + 8 * took.elements + OBJECT * took.results
        assert took.peak <= FACTOR * asked + ROOM + PIECES.get(name, 0), took


@pytest.mark.slow
@pytest.mark.parametrize("name", operations())
def test_the_peak_of_the_backward_pass_is_bounded_by_what_was_asked_for(name: str) -> None:
    for took in measure(name, backward=True):
        asked = max(took.admitted, 0) + 8 * took.elements + OBJECT * took.results
        assert took.peak <= FACTOR * asked + ROOM, took


def test_most_operations_can_be_measured() -> None:
    names = operations()[::25]
    assert sum(bool(measure(name)) for name in names) > len(names) / 2
