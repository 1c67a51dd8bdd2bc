"""Programs: many steps in one request, all or nothing. A single operation is a program of one step.

`compile_program` checks everything that needs no tensor: fields, operations, parameters, types, limits. What is left at
run time is to look names up and call. `run_program` is a generator that yields at every step boundary, so that
programs of different sessions can take turns.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from typing import Any

from engine.context import Context
from engine.errors import (
    DeviceLost,
    EngineError,
    Hint,
    Invalid,
    LimitExceeded,
    OutOfTime,
)
from engine.passes import planned_pass
from engine.rounds import PlannedRounds
from engine.scope import Namespace, Outcome, Scope, bind_several, locate, named, no_memory, one_number
from engine.steps import Function, Program, Repeat, Step
from engine.tensor import Lendable, Tensor


def run_program(program: Program, session: Namespace) -> Generator[None, None, Outcome]:
    """Runs inputs and steps, yielding after each. The caller rolls back when it raises."""
    scope = Scope(session, program.strict)
    outcome = Outcome(scope, {}, 0, total=program.total, entry=program.entry)
    for name, value in program.inputs.items():
        try:
            scope.names[name] = (
                scope.resolve(value, name)
                if isinstance(value, str)
                # A program that finds that it has to begin again finds its inputs as they were given.
                else scope.literal(value, name, adopt=not program.steps or not (session.ctx.borrows or Lendable.out))
            )
        except EngineError as e:
            e.param = e.param or name
            if e.hint is not None:
                e.hint = e.hint.fill({"input": name})
            raise
    ctx = session.ctx
    ctx.outcome = outcome
    ctx.trail.clear()
    if program.no_grad:
        ctx.grad_enabled = False
    before = ctx.anomaly
    ctx.anomaly = ctx.anomaly or program.detect_anomaly
    try:
        if not planned_pass(program, scope, outcome):
            yield from _run_steps(program.steps, scope, outcome, [], [])
    except OutOfTime as e:
        e.facts["steps_run"] = outcome.steps_run
        raise
    finally:
        ctx.grad_enabled = True
        if program.detect_anomaly:
            ctx.anomaly = before
    return outcome


def _run_steps(
    steps: Sequence[Step | Repeat], scope: Scope, outcome: Outcome, path: list[int], rounds: list[int]
) -> Iterator[None]:
    names = scope.names
    ctx = scope.ctx
    times = ctx.op_times
    for i, step in enumerate(steps):
        if isinstance(step, Repeat):
            yield from _run_repeat(step, scope, outcome, [*path, i], rounds)
            continue
        begin = 0.0 if times is None else time.perf_counter()
        try:
            args = step.values.copy()
            for at, get in step.getters:
                args[at] = get(scope)
            seq = ctx.seq
            for at in step.op.functions:
                if args[at] is not None:
                    args[at] = Bound(args[at], scope, outcome, [*path, i], rounds)
            if step.no_grad and ctx.grad_enabled:
                ctx.grad_enabled = False
                try:
                    made = step.op.run(tuple(args))
                    if step.op.functions:
                        made = yield from made
                finally:
                    ctx.grad_enabled = True
            else:
                made = step.op.run(tuple(args))
                if step.op.functions:
                    made = yield from made
            if ctx.sync:
                ctx.synchronize()
        except EngineError as e:
            locate(e, step, [*path, i], rounds)
            raise
        except Exception as e:
            error = step_error(ctx, e)
            if error is None:
                raise
            locate(error, step, [*path, i], rounds)
            raise error from e
        outcome.steps_run += 1
        if ctx.anomaly and ctx.seq > seq and not step.op.functions:
            ctx.trail.append((seq, [*path, i], list(rounds), step.op.name))
        out = step.out
        if out is not None:
            if isinstance(out, str):
                names[out] = named(step.op, made)
            else:
                bind_several(step, out, made, names, [*path, i], rounds)
        if times is not None:
            times[step.op.name] = times.get(step.op.name, 0.0) + time.perf_counter() - begin
        try:
            yield
        except OutOfTime as e:  # thrown in where the program waits for its next turn
            locate(e, step, [*path, i], rounds)
            raise


def step_error(ctx: Context, problem: Exception) -> EngineError | None:
    """What an exception in a step is to the caller; None where it is of no device, and a bug of ours."""
    error = ctx.fault(problem)
    if error is None and isinstance(problem, MemoryError):
        error = no_memory()
    if type(error) is DeviceLost and not ctx.sync and error.hint is not None:
        error.hint = Hint("device-lost-late", **error.hint.facts)  # it may have been a step before this one
    return error


class Bound:
    """A function in the scope of the step that calls it: `outputs = yield from bound(tensors)`."""

    __slots__ = ("function", "outcome", "path", "rounds", "scope")

    def __init__(self, function: Function, scope: Scope, outcome: Outcome, path: list[int], rounds: list[int]) -> None:
        self.function, self.scope, self.outcome, self.path, self.rounds = function, scope, outcome, path, rounds

    def __call__(self, given: Sequence[Tensor]) -> Generator[None, None, Any]:
        function, outcome = self.function, self.outcome
        inside = self.inside(given)
        if outcome.steps_run + function.cost > function.limit:
            raise LimitExceeded(
                f"this program would run more than the limit of {function.limit} steps",
                hint=Hint("limit", name="max_run", limit=function.limit),
            )
        yield from _run_steps(function.steps, inside, outcome, self.path, self.rounds)
        return returned(function, inside)

    def inside(self, given: Sequence[Any]) -> Scope:
        """The scope of one call: its inputs before all that the calling step sees."""
        names = self.function.inputs
        if len(given) != len(names):
            raise Invalid(
                f"the function takes {len(names)} input{'s' if len(names) != 1 else ''} ({', '.join(names)}), and "
                f"{len(given)} {'are' if len(given) != 1 else 'is'} given",
                code="input-count",
                param="inputs",
            )
        scope = type(self.scope)(self.scope.session, self.scope.strict)
        scope.names = {**self.scope.names, **dict(zip(names, given, strict=True))}
        return scope


def returned(function: Function, scope: Scope) -> Any:
    """What a function gives, once its steps have run in a scope: one thing, or a list where it returns a list."""
    if isinstance(function.returns, list):
        return [scope.resolve(name, "return") for name in function.returns]
    return scope.resolve(function.returns, "return")


def _run_repeat(repeat: Repeat, scope: Scope, outcome: Outcome, path: list[int], rounds: list[int]) -> Iterator[None]:
    inner = outcome.rounds = [*rounds, 0]
    outcome.times.append(repeat.times)
    for name in repeat.collect:
        outcome.collected.setdefault(name, [])
    n = 0
    planned = PlannedRounds(repeat, scope, outcome, path, inner, outcome.entry)
    while n < repeat.times:
        # The last round is the interpreter's: it leaves the names, tapes and gradients that a reader finds.
        if n == 0:
            yield from planned.again(repeat.times - 1)
        elif n == 1 and planned.wanted():
            yield from planned.run(repeat.times - 1)
        n = inner[-1] + 1
        inner[-1] = n
        yield from _run_steps(repeat.steps, scope, outcome, path, inner)
        _collect(repeat, scope, outcome, path, inner)
    outcome.rounds = rounds
    outcome.times.pop()


def _collect(repeat: Repeat, scope: Scope, outcome: Outcome, path: list[int], rounds: list[int]) -> None:
    for name, every in repeat.collect.items():
        if rounds[-1] % every == 0:
            try:
                outcome.collected[name].append(one_number(scope.resolve(name, "collect"), name))
            except EngineError as e:
                e.step, e.round = path, rounds.copy()
                raise
