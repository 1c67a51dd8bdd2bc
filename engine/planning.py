"""Plans made: a round of a repeat, or a program's one pass, traced and compiled into what runs it again."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from engine.backend import CPU, is_array
from engine.cells import Cell, NotPlanned
from engine.chains import FusedPlan
from engine.compile import Plan, carried_over
from engine.remains import Remains
from engine.replays import Reads, guard
from engine.scope import ABSENT, Scope, bind_several, named
from engine.steps import Repeat, Step
from engine.tensor import Tensor
from engine.trace import Tracer

PLANNED = "(planned rounds)"  # what their time is counted under: the steps of a plan are not told apart


@dataclass(slots=True)
class Made:
    """A plan and what it does to tensors from outside, which are named by their number in the guard.

    `seqs`: sequence numbers that a round uses. `bumps`: (tensor, how often its storage is written), `logged`: (tensor,
    low, high) of the ranges that are. `most`: bytes of all results of a round. `seconds`: what tracing took.
    """

    plan: Plan
    seqs: int
    bumps: list[tuple[int, int]]
    logged: list[tuple[int, int, int]]
    most: int
    seconds: float
    remains: Remains | None = None


class TracedScope(Scope):
    """The names of a round while it is traced: what it made so far, then what it found."""

    __slots__ = ("outer", "read", "reads", "tracer")

    def __init__(self, outer: Scope, tracer: Tracer) -> None:
        super().__init__(outer.session, outer.strict)
        self.outer = outer
        self.tracer = tracer
        self.read: dict[str, Any] = {}  # what was found outside before the round made something of that name
        self.reads: dict[tuple[str, bool], None] = {}  # all that was looked up outside, states of optimizers too

    def resolve(self, name: str, param: str | None = None) -> Any:
        found = self.names.get(name, ABSENT)
        if found is not ABSENT:
            return found
        if name.endswith(".grad"):
            base = self.resolve(name[:-5], param)
            return self.tracer.gradient(base) if isinstance(base, Cell) else None
        self.reads[name, False] = None
        found = self.outer.resolve(name, param)
        self.read[name] = found
        return self._traced(found)

    def _traced(self, found: Any) -> Any:
        if isinstance(found, Tensor):
            return self.tracer.cell(found)
        if type(found) is list:
            return [self._traced(x) for x in found]
        return {k: self._traced(v) for k, v in found.items()} if type(found) is dict else found

    def tensor(self, name: str, param: str) -> Tensor:
        found = self.resolve(name, param)
        if isinstance(found, Tensor):
            return found
        if type(found) in (bool, int, float, complex):
            return self.literal(found, param)
        raise NotPlanned(f"{name!r} is no tensor")

    def tensors(self, name: str, param: str, op: str, *, nulls: bool = False) -> list[Any]:
        found = self.resolve(name, param)
        if type(found) is list and all(isinstance(t, Tensor) or (nulls and t is None) for t in found):
            return found
        raise NotPlanned(f"{name!r} is no list of tensors")

    def state(self, name: str, param: str) -> dict[str, Any]:
        if name in self.names:
            raise NotPlanned(f"{name!r} is made anew in every round")
        self.reads[name, True] = None
        found: dict[str, Any] = self._traced(self.outer.state(name, param))
        return found

    def literal(self, value: Any, param: str, empty: type = float, adopt: bool = False) -> Tensor:
        made = super().literal(value, param, empty, adopt)
        if made.requires_grad:
            raise NotPlanned("a leaf is made in every round")
        self.tracer.constant(made.array)
        return self.tracer.owned(made.array, made.spec, made.backend, fixed=True)


class Planning:
    """One attempt at a plan. `reads`: the names that it depends on, also where it fails; `known`: those of others."""

    def __init__(self, scope: Scope, steps: Sequence[Step | Repeat], known: Reads) -> None:
        self.scope, self.steps, self.known = scope, steps, known
        self.reads: dict[tuple[str, bool], None] = {}

    def rounds(self, collect: Mapping[str, int]) -> Made:
        """A plan of rounds. Raises NotPlanned."""
        return self._made(collect, None)

    def one_pass(self, wanted: Sequence[str], longest: float) -> Made:
        """A plan of the steps as they stand, which leaves what the wanted names stand for. Raises NotPlanned, also
        where tracing has taken `longest` seconds after some step."""
        return self._made({}, wanted, longest)

    def _made(self, collect: Mapping[str, int], wanted: Sequence[str] | None, longest: float = inf) -> Made:
        ctx = self.scope.ctx
        if any(isinstance(step, Repeat) for step in self.steps):
            raise NotPlanned("there is a repeat within")
        if ctx.anomaly:
            raise NotPlanned("anomaly detection looks at every step")
        if ctx.sync:
            raise NotPlanned("the device is waited for after every step")
        begin = time.thread_time()
        tracer = Tracer(ctx)
        traced = TracedScope(self.scope, tracer)
        self.reads = traced.reads
        generator = ctx.rng.snapshot()
        mode = ctx.grad_enabled
        seqs = 0
        try:
            for place, step in enumerate(self.steps):
                assert isinstance(step, Step)
                tracer.place = place
                _trace(step, traced, tracer)
                if time.thread_time() - begin > longest:
                    raise NotPlanned("it takes too long for one turn")
            asked = {name: _asked(name, traced, tracer) for name in collect}
            tensors, _ = guard(self.scope, list(dict.fromkeys([*self.known, *traced.reads])))
            places = {id(t): i for i, t in enumerate(tensors)}
            if any(id(t) not in places for t, _ in tracer.outside.values()):
                raise NotPlanned("a gradient has a gradient of its own")
            carried, remains = {}, None
            if wanted is None:
                carried = _carried(traced, tracer)
            else:
                remains = _remains(wanted, traced, tracer, places)
            at = {storage: places[id(t)] for storage, t in tracer.given.items()}
            bumps = [(at[key], times) for key, (_, _, times) in tracer.bumps.items()]
            logged = [(at[id(storage)], low, high) for storage, low, high in tracer.logged]
        finally:
            ctx.grad_enabled = mode
            ctx.rng.restore(generator)
            seqs = tracer.finish()
        if any(is_array(x) and type(x) is not CPU.ndarray for x in tracer.arrays):
            if remains is not None:
                raise NotPlanned("on a device only repeats are planned")
            plan: Plan = FusedPlan(tracer, carried, asked, places=places)
        else:
            plan = Plan(tracer, carried, asked, () if remains is None else remains.slots, places=places)
        return Made(plan, seqs, bumps, logged, tracer.made_bytes, time.thread_time() - begin, remains)


def _trace(step: Step, traced: TracedScope, tracer: Tracer) -> None:
    ctx = traced.ctx
    args = step.values.copy()
    for at, get in step.getters:
        args[at] = get(traced)
    mode = ctx.grad_enabled
    if step.no_grad:
        ctx.grad_enabled = False
    try:
        made = tracer.run(step.op, tuple(args))
    finally:
        ctx.grad_enabled = mode
    if step.out is None:
        return
    if isinstance(step.out, str):
        traced.names[step.out] = named(step.op, made)
    else:
        bind_several(step, step.out, made, traced.names, [], [])


def _asked(name: str, traced: TracedScope, tracer: Tracer) -> int:
    found = traced.resolve(name, "collect")
    if not isinstance(found, Cell) or found.numel != 1 or found.dtype.reduced:
        raise NotPlanned(f"{name!r}, which is collected, is no plain number")
    return tracer.slot(found.array)


def _carried(traced: TracedScope, tracer: Tracer) -> dict[str, tuple[int, int]]:
    """How names go from a round to the next."""
    if tracer.first:
        raise NotPlanned("a leaf gets its first gradient")
    carried = {}
    for name, start in traced.read.items():
        if name in traced.names:
            slots = carried_over(tracer, name, start, traced.names[name])
            if slots is not None:
                carried[name] = slots
    return carried


def _remains(wanted: Sequence[str], traced: TracedScope, tracer: Tracer, places: Mapping[int, int]) -> Remains:
    if tracer.inner_seqs:
        raise NotPlanned("a step numbers nodes of its own")
    found = {}
    for name in wanted:
        while name not in traced.names and name.endswith(".grad"):
            name = name[:-5]
        if name in traced.names:
            found[name] = traced.names[name]
    return Remains(tracer, found, places)


__all__ = ["PLANNED", "Made", "Planning"]
