"""The rounds of a repeat between its first and its last, run by a plan where one can be made."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from engine.cells import Cell, NotPlanned
from engine.compile import Plan, carried_over
from engine.errors import (
    EngineError,
    OutOfTime,
)
from engine.scope import ABSENT, Outcome, PlanReport, Scope, bind_several, locate, named, no_memory
from engine.steps import Repeat, Step
from engine.tensor import Tensor, fresh
from engine.trace import Tracer

PLANNED_S = 0.0005  # how long planned rounds run before others may have a turn
PLANNED = "(planned rounds)"  # what their time is counted under: the steps of a plan are not told apart


class TracedScope(Scope):
    """The names of a round while it is traced: what it made so far, then what it found."""

    __slots__ = ("outer", "read", "tracer")

    def __init__(self, outer: Scope, tracer: Tracer) -> None:
        super().__init__(outer.session, outer.strict)
        self.outer = outer
        self.tracer = tracer
        self.read: dict[str, Any] = {}  # what was found outside before the round made something of that name

    def resolve(self, name: str, param: str | None = None) -> Any:
        found = self.names.get(name, ABSENT)
        if found is not ABSENT:
            return found
        if name.endswith(".grad"):
            base = self.resolve(name[:-5], param)
            return self.tracer.gradient(base) if isinstance(base, Cell) else None
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
        found: dict[str, Any] = self._traced(self.outer.state(name, param))
        return found

    def literal(self, value: Any, param: str, empty: type = float, adopt: bool = False) -> Tensor:
        made = super().literal(value, param, empty, adopt)
        if made.requires_grad:
            raise NotPlanned("a leaf is made in every round")
        self.tracer.constant(made.array)
        return self.tracer.owned(made.array, made.spec, made.backend, fixed=True)


class PlannedRounds:
    """The rounds of one repeat between its first and its last."""

    def __init__(self, repeat: Repeat, scope: Scope, outcome: Outcome, path: list[int], rounds: list[int]) -> None:
        self.repeat, self.scope, self.outcome, self.path, self.rounds = repeat, scope, outcome, path, rounds
        self.report = outcome.plans.setdefault(tuple(path), PlanReport())

    def run(self, last: int) -> Iterator[None]:
        """Rounds up to `last`, which `rounds` then says; none where there can be no plan."""
        try:
            tracer, plan = self._plan()
        except NotPlanned as e:
            self.report.why = str(e)
            return
        except EngineError:
            self.report.why = "a step of the second round is refused"
            return
        ctx = self.scope.ctx
        ctx.admit(plan.nbytes)
        ctx.ledger.held += plan.nbytes
        try:
            yield from self._rounds(plan, tracer, last)
        finally:
            ctx.ledger.held -= plan.nbytes

    def _rounds(self, plan: Plan, tracer: Tracer, last: int) -> Iterator[None]:
        ctx, repeat, scope = self.scope.ctx, self.repeat, self.scope
        for storage, low, high in tracer.logged:
            ctx.undo.write(storage, low, high)
            ctx.undo.slot(storage, "version")
        carried = [scope.names[name].array for name in plan.carried]
        batch = 1
        while self.rounds[-1] < last:
            upto = min(last, self.rounds[-1] + batch)
            for every in repeat.collect.values():  # a round after which something is collected ends a batch
                upto = min(upto, self.rounds[-1] - self.rounds[-1] % every + every)
            done = upto - self.rounds[-1]
            start = time.perf_counter()
            try:
                carried, asked = plan.run(done, carried)
            except EngineError as e:
                self.locate(e, e, plan)
                raise
            except MemoryError as e:
                raise self.locate(no_memory(), e, plan) from e
            spent = time.perf_counter() - start
            batch = batch * 2 if spent < PLANNED_S / 2 else max(1, batch // 2) if spent > PLANNED_S else batch
            self.rounds[-1] = upto
            self.outcome.steps_run += done * len(repeat.steps)
            self.report.rounds += done
            ctx.seq += done * self.seqs
            for storage, _, times in tracer.bumps.values():
                storage.version += done * times
            for name, array in zip(plan.asked, asked, strict=True):
                if upto % repeat.collect[name] == 0:
                    self.outcome.collected[name].append(array.reshape(-1)[0].item())
            if ctx.op_times is not None:
                ctx.op_times[PLANNED] = ctx.op_times.get(PLANNED, 0.0) + spent
            try:
                yield
            except OutOfTime as e:
                e.step, e.round = self.path, self.rounds.copy()
                raise
        for name, array in zip(plan.carried, carried, strict=True):
            old = scope.names[name]
            scope.names[name] = fresh(array, old.spec, old.backend, ctx.ledger)

    def locate(self, error: EngineError, cause: Exception, plan: Plan) -> EngineError:
        """The error with the step and the round in which `cause` came up."""
        place, over = plan.place_of(cause.__traceback__)
        step = self.repeat.steps[place]
        assert isinstance(step, Step)
        self.rounds[-1] += over + 1
        locate(error, step, [*self.path, place], self.rounds)
        return error

    def _plan(self) -> tuple[Tracer, Plan]:
        ctx = self.scope.ctx
        if any(isinstance(step, Repeat) for step in self.repeat.steps):
            raise NotPlanned("there is a repeat within")
        if ctx.anomaly:
            raise NotPlanned("anomaly detection looks at every step")
        tracer = Tracer(ctx)
        traced = TracedScope(self.scope, tracer)
        generator = ctx.rng.snapshot()
        mode = ctx.grad_enabled
        try:
            for place, step in enumerate(self.repeat.steps):
                assert isinstance(step, Step)
                tracer.place = place
                self._trace(step, traced, tracer)
            asked = {name: self._asked(name, traced, tracer) for name in self.repeat.collect}
            carried = {}
            for name, start in traced.read.items():
                if name in traced.names:
                    slots = carried_over(tracer, name, start, traced.names[name])
                    if slots is not None:
                        carried[name] = slots
        finally:
            ctx.grad_enabled = mode
            ctx.rng.restore(generator)
            self.seqs = tracer.finish()
        return tracer, Plan(tracer, carried, asked)

    def _trace(self, step: Step, traced: TracedScope, tracer: Tracer) -> None:
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

    def _asked(self, name: str, traced: TracedScope, tracer: Tracer) -> int:
        found = traced.resolve(name, "collect")
        if not isinstance(found, Cell) or found.numel != 1 or found.dtype.reduced:
            raise NotPlanned(f"{name!r}, which is collected, is no plain number")
        return tracer.slot(found.array)
