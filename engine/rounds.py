"""The rounds of a repeat between its first and its last, run by a plan where one can be made or is kept."""

from __future__ import annotations

import time
from collections.abc import Iterator

from engine.cells import NotPlanned
from engine.errors import DeviceLost, EngineError, Hint, OutOfMemory, OutOfTime
from engine.planning import PLANNED, Made, Planning
from engine.replays import REPEATS_FROM, Entry, Kept
from engine.scope import Outcome, PlanReport, Scope, locate, no_memory
from engine.steps import Repeat, Step
from engine.tensor import Tensor, fresh

# How long planned rounds run before others may have a turn: looking for them costs some 20 µs.
PLANNED_S = 0.0025


class PlannedRounds:
    """The rounds of one repeat but its last. `entry`: what is kept of the program, if anything."""

    def __init__(
        self, repeat: Repeat, scope: Scope, outcome: Outcome, path: list[int], rounds: list[int], entry: Entry | None
    ) -> None:
        self.repeat, self.scope, self.outcome, self.path, self.rounds = repeat, scope, outcome, path, rounds
        self.entry = entry
        if entry is not None:
            self.kept = entry.kept(path)
        else:  # a repeat within another one comes again and again in one program
            self.kept = outcome.kept.setdefault(tuple(path), Kept())

    def wanted(self) -> bool:
        """Whether a plan is to be made, after the first round."""
        plan_from = self.scope.ctx.plan_from
        again = self.entry is not None and self.entry.seen >= REPEATS_FROM
        return bool(plan_from) and self.repeat.times >= (min(plan_from, 3) if again else plan_from)

    def again(self, last: int) -> Iterator[None]:
        """Rounds up to `last` by a plan that is kept; none where none fits."""
        ctx = self.scope.ctx
        if ctx.plan_from and self.kept.found and last > self.rounds[-1]:
            tensors, found = self.kept.find(self.scope)
            if isinstance(found, Made):
                if ctx.plans is not None:
                    ctx.plans.replayed += 1
                yield from self._admitted(found, tensors, last)

    def run(self, last: int) -> Iterator[None]:
        """Rounds up to `last`, which `rounds` then says; none where there can be no plan."""
        tensors, found = self.kept.find(self.scope)
        if found is None:
            plans = self.scope.ctx.plans
            if plans is not None:
                plans.unfit += bool(self.kept.found)
            if self.kept.restless:
                self._report().why = "the inputs are of another form each time"
                return
            found = self._make()
            tensors, _ = self.kept.find(self.scope)
        if isinstance(found, Made):
            yield from self._admitted(found, tensors, last)
        else:
            self._report().why = found

    def _make(self) -> Made | str:
        planning = Planning(self.scope, self.repeat.steps, list(self.kept.reads))
        found: Made | str
        try:
            found = planning.rounds(self.repeat.collect)
        except NotPlanned as e:
            found = str(e)
        except EngineError:
            return "a step of the second round is refused"
        keep(self.scope, self.entry, self.kept, planning, found)
        return found

    def _report(self) -> PlanReport:
        return self.outcome.plans.setdefault(tuple(self.path), PlanReport())

    def _admitted(self, made: Made, tensors: list[Tensor], last: int) -> Iterator[None]:
        ctx, nbytes = self.scope.ctx, made.plan.nbytes
        report = self._report()
        try:
            ctx.admit(max(nbytes, made.most))
        except OutOfMemory:
            report.why = "the memory that its plan takes is not free"
            return
        report.why, report.kernels, report.unfused = None, made.plan.kernels, made.plan.unfused
        self.kept.ran += 1
        ctx.ledger.held += nbytes
        try:
            yield from self._rounds(made, tensors, last, report)
        finally:
            ctx.ledger.held -= nbytes

    def _rounds(self, made: Made, tensors: list[Tensor], last: int, report: PlanReport) -> Iterator[None]:
        ctx, repeat, scope, plan = self.scope.ctx, self.repeat, self.scope, made.plan
        log_writes(made, tensors, scope)
        starts = {name: scope.resolve(name) for name in plan.carried}
        carried = [t.array for t in starts.values()]
        bound = plan.bind(tensors)
        batch = 1
        while self.rounds[-1] < last:
            upto = min(last, self.rounds[-1] + batch)
            for every in repeat.collect.values():  # a round after which something is collected ends a batch
                upto = min(upto, self.rounds[-1] - self.rounds[-1] % every + every)
            done = upto - self.rounds[-1]
            start = time.perf_counter()
            try:
                carried, asked, _ = plan.run(bound, done, carried)
            except EngineError as e:
                self.locate(e, e, made)
                raise
            except Exception as e:
                error = ctx.fault(e) or (no_memory() if isinstance(e, MemoryError) else None)
                if error is None:
                    raise
                if type(error) is DeviceLost and error.hint is not None:
                    error.hint = Hint("device-lost-late", **error.hint.facts)
                raise self.locate(error, e, made) from e
            spent = time.perf_counter() - start
            batch = max(1, min(2 * batch, int(PLANNED_S * done / max(spent, 1e-9))))
            self.rounds[-1] = upto
            self.outcome.steps_run += done * len(repeat.steps)
            report.rounds += done
            ctx.seq += done * made.seqs
            for n, times in made.bumps:
                tensors[n].storage.version += done * times
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
        for (name, old), array in zip(starts.items(), carried, strict=True):
            scope.names[name] = fresh(array, old.spec, old.backend, ctx.ledger)

    def locate(self, error: EngineError, cause: Exception, made: Made) -> EngineError:
        """The error with the step and the round in which `cause` came up."""
        place, over = made.plan.place_of(cause.__traceback__)
        step = self.repeat.steps[place]
        assert isinstance(step, Step)
        self.rounds[-1] += over + 1
        locate(error, step, [*self.path, place], self.rounds)
        return error


def keep(scope: Scope, entry: Entry | None, kept: Kept, planning: Planning, found: Made | str) -> None:
    """Keeps a plan, or why there is none: with its program, or else for as long as this request."""
    plans = scope.ctx.plans
    if plans is None or not plans.add(entry, kept, scope, list(planning.reads), found):
        kept.put(scope, list(planning.reads), found, 0)


def log_writes(made: Made, tensors: list[Tensor], scope: Scope) -> None:
    """Tells the undo log what a plan is going to write."""
    undo = scope.ctx.undo
    for n, low, high in made.logged:
        storage = tensors[n].storage
        undo.write(storage, low, high)
        undo.slot(storage, "version")
