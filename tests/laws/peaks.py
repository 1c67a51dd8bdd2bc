"""How much memory an operation takes at its peak, on samples that are grown until its own memory is most of it."""

from __future__ import annotations

import copy
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import scipy.linalg  # noqa: F401  it is loaded by whoever is the first to use it, and counted as memory of that

from engine.autograd import run_backward
from engine.errors import EngineError
from engine.record import REC
from engine.samples import S, T
from tests.laws import harness
from tests.laws.harness import Case, floating, leaves_of, samples_of, walk
from tests.laws.law import changes_input

LIMIT = 64 << 20
NUMEL = 20_000  # about so many elements has the largest operand


def grown(sample: S, times: int) -> S:
    """The sample with all of its tensors' sizes that are not 1 so many times as large."""

    def visit(value: Any) -> Any:
        if not isinstance(value, T):
            return value
        made = copy.copy(value)
        made.shape = tuple(n * times if n > 1 else n for n in value.shape)
        if value.values is not None:
            values = np.array(value.values)
            made.values = np.tile(values, [times if n > 1 else 1 for n in values.shape])
        return made

    return S(*walk(list(sample.args), visit), **walk(sample.kwargs, visit))


def candidates(name: str) -> list[tuple[int, S]]:
    """(number, grown sample): for each sample several sizes, the largest first."""
    found = []
    for number, sample in enumerate(samples_of(name)):
        tensors = [x for x in leaves_of([list(sample.args), sample.kwargs]) if isinstance(x, T)]
        dims = max((sum(n > 1 for n in t.shape) for t in tensors), default=0)
        numel = max((int(np.prod(t.shape)) for t in tensors), default=0)
        if dims and numel:
            most = round((NUMEL / numel) ** (1 / dims))
            found += [(number, grown(sample, times)) for times in (most, most // 2, most // 4) if times > 1]
    return found


class Took(NamedTuple):
    """Bytes at the peak beyond what was there, and what they are held against."""

    peak: int
    admitted: int  # bytes that were asked for at most
    elements: int  # of the operands
    results: int  # tensors that came out


@contextmanager
def _peak(case: Case) -> Iterator[list[int]]:
    """At the end: the bytes at the peak beyond what was there, and those that were asked for at most."""
    ctx = case.ctx
    before, most, admit = ctx.ledger.held, 0, ctx.admit
    found: list[int] = []

    def admitted(nbytes: int) -> None:
        nonlocal most
        most = max(most, ctx.ledger.held + ctx.undo.bytes_held + nbytes)
        admit(nbytes)

    with case.here(), mock.patch.object(ctx, "admit", admitted):
        tracemalloc.start()
        try:
            start = tracemalloc.get_traced_memory()[0]
            yield found
            peak = tracemalloc.get_traced_memory()[1] - start
        finally:
            tracemalloc.stop()
    found += (peak, max(most, ctx.ledger.held + ctx.undo.bytes_held) - before)


def _case(name: str, number: int, sample: S) -> Case:
    with mock.patch.object(harness, "samples_of", return_value=(sample,) * (number + 1)):
        case = Case(name, number, "cpu", "float32")
    case.ctx.ledger.limit = LIMIT  # of more than that a smaller sample is tried
    return case


def measured(name: str, number: int, sample: S) -> Took:
    """What an operation takes on a sample. Raises EngineError, or what NumPy does, where it does not take that."""
    case = _case(name, number, sample)
    tensors = case.tensors()
    with _peak(case) as found:
        result = case.run(tensors)
    made = len(leaves_of(result))
    return Took(*found, sum(t.numel for t in tensors), made)


def measured_backward(name: str, number: int, sample: S) -> Took | None:
    """What the backward pass of an operation takes beyond its forward pass, whose tape counts among its operands; None
    where it has none."""
    case = _case(name, number, sample)
    start = case.ctx.ledger.held
    tensors = case.tensors(case.floats)
    if changes_input(case.op) or case.op.kind == "inplace":
        with case.here():
            tensors[0] = REC.clone(tensors[0])
    with case.here():
        outputs = [t for t in case.outputs(tensors) if floating(t) and t.requires_grad]
        if not outputs:
            return None
        ones = [REC.ones_like(t) for t in outputs]
    tape = case.ctx.ledger.held - start
    with _peak(case) as found:
        run_backward(outputs, ones)
    return Took(found[0], found[1] + tape, sum(t.numel for t in (*tensors, *outputs)), len(outputs))


def measure(name: str, *, backward: bool = False) -> list[Took]:
    """What each of an operation's samples took, of those that can be grown; or what their backward passes did."""
    found: dict[int, Took | None] = {}
    one = measured_backward if backward else measured
    for number, sample in candidates(name):
        if number in found:
            continue
        try:
            found[number] = one(name, number, sample)
        except (EngineError, ValueError, TypeError, IndexError, MemoryError):  # its numbers fit the small sample alone
            continue
    return [took for took in found.values() if took is not None]
