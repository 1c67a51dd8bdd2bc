"""A program without rounds that comes again: its one pass by a plan, in the place of the interpreter."""

from __future__ import annotations

import time

from engine.cells import NotPlanned
from engine.errors import EngineError, OutOfMemory
from engine.planning import PLANNED, Made, Planning
from engine.replays import PASSES_FROM
from engine.rounds import keep, log_writes
from engine.scope import Outcome, PlanReport, Scope, locate, no_memory
from engine.steps import Program, Step
from engine.tensor import Tensor

SHORTEST = 4  # steps: of fewer, looking whether a plan fits takes as long as running them
LONGEST_S = 0.25  # a plan runs in one go, so that what takes longer than this has none: others wait meanwhile


def planned_pass(program: Program, scope: Scope, outcome: Outcome) -> bool:
    """Runs a program by its plan, and says so; False where the interpreter has to."""
    ctx, entry = scope.ctx, program.entry
    if entry is None or entry.seen < PASSES_FROM or not ctx.plan_from or len(program.steps) < SHORTEST:
        return False
    if ctx.plans is None or not all(isinstance(step, Step) and not step.op.functions for step in program.steps):
        return False
    kept = entry.kept(())
    report = outcome.plans[()] = PlanReport()
    tensors, found = kept.find(scope)
    if found is None:
        ctx.plans.unfit += bool(kept.found)
        if kept.restless:
            report.why = "the inputs are of another form each time"
            return False
        found, tensors = _make(program, scope), None
        if found is None:
            report.why = "a step is refused"
            return False
    else:
        ctx.plans.replayed += isinstance(found, Made)
    if not isinstance(found, Made):
        report.why = found
        return False
    if 0 < ctx.max_seconds < found.seconds:
        report.why = "it may take longer than a program may"
        return False
    if tensors is None:
        tensors, _ = kept.find(scope)
    try:
        ctx.admit(found.plan.nbytes + found.most)
    except OutOfMemory:
        report.why = "the memory that its plan takes is not free"
        return False
    kept.ran += 1
    _run(found, tensors, program, scope)
    outcome.steps_run += len(program.steps)
    report.rounds = 1
    return True


def _make(program: Program, scope: Scope) -> Made | str | None:
    kept = program.entry.kept(())
    planning = Planning(scope, program.steps, list(kept.reads))
    found: Made | str
    try:
        found = planning.one_pass([*program.returns, *program.keep, *program.keep_all], LONGEST_S)
    except NotPlanned as e:
        found = str(e)
    except EngineError:
        return None
    keep(scope, program.entry, kept, planning, found)
    return found


def _run(made: Made, tensors: list[Tensor], program: Program, scope: Scope) -> None:
    ctx, plan, remains = scope.ctx, made.plan, made.remains
    assert remains is not None
    log_writes(made, tensors, scope)
    versions = {id(t.storage): t.storage.version for t in tensors}
    seq = ctx.seq
    start = time.perf_counter()
    try:
        _, _, arrays = plan.run(plan.bind(tensors), 1)
    except EngineError as e:
        _locate(e, e, made, program)
        raise
    except MemoryError as e:
        raise _locate(no_memory(), e, made, program) from e
    if ctx.op_times is not None:
        ctx.op_times[PLANNED] = ctx.op_times.get(PLANNED, 0.0) + time.perf_counter() - start
    for n, times in made.bumps:
        tensors[n].storage.version += times
    scope.names.update(remains.left(arrays, tensors, versions, seq, ctx))
    ctx.seq = seq + made.seqs


def _locate(error: EngineError, cause: Exception, made: Made, program: Program) -> EngineError:
    place, _ = made.plan.place_of(cause.__traceback__)
    step = program.steps[place]
    assert isinstance(step, Step)
    locate(error, step, [place], [])
    return error
