"""Programs: many steps in one request, all or nothing. A single operation is a program of one step.

`compile_program` checks everything that needs no tensor: fields, operations, parameters, types, limits. What is left at
run time is to look names up and call. `run_program` is a generator that yields at every step boundary, so that
programs of different sessions can take turns.
"""

from __future__ import annotations

import re
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Protocol

from engine.arguments import Getter, kind_of, number, read_argument, references
from engine.backend import find
from engine.compile import Plan, carried_over
from engine.context import Context
from engine.dtypes import dtype
from engine.errors import (
    EngineError,
    Hint,
    Invalid,
    LimitExceeded,
    MissingParameter,
    NoGrad,
    NoSuchTensor,
    OutOfMemory,
    OutOfTime,
    UnknownParameter,
    WrongType,
)
from engine.limits import Limits
from engine.literal import read
from engine.op import REGISTRY, Op, Spec, choose, find_op, unknown_parameter
from engine.tape import require_grad
from engine.tensor import Tensor, fresh
from engine.trace import Cell, NotPlanned, Tracer

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}\Z")
_ID = re.compile(r"t\d+\Z")
_JSON_WORDS = {"true", "false", "null", "NaN", "Infinity"}
_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?\Z")


def check_name(name: Any, what: str = "name") -> str:
    """A tensor's name, as API.md allows it. Raises Invalid that says what is wrong."""
    if not isinstance(name, str):
        raise WrongType(f"a {what} is a string, got {kind_of(name)}", param=what)
    wrong, hint = None, "name-rule"
    if not NAME.match(name):
        wrong = "it takes letters, digits, _ . and -, begins with a letter, digit or _, and has at most 255 characters"
    elif _ID.match(name):
        wrong, hint = "t and digits is the form of ids", "name-id"
    elif name in _JSON_WORDS or _NUMBER.match(name):
        wrong, hint = "it would read as a JSON value", "name-json"
    elif name.endswith(".grad"):
        wrong, hint = "x.grad is the gradient of x", "name-grad"
    if wrong:
        known = Hint(hint, name=name, base=name.removesuffix(".grad"))
        raise Invalid(f"{name!r} cannot be a {what}: {wrong}", code="bad-name", param=what, hint=known)
    return name


class Namespace(Protocol):
    """What a program needs of the session it runs in."""

    ctx: Context

    def find(self, reference: str) -> Tensor | None: ...
    def find_state(self, reference: str) -> dict[str, list[Tensor]] | None: ...
    def references(self) -> Sequence[str]: ...


# Operations that the HTTP front uses and no client sees.
PRIVATE = frozenset(("_release", "_release_unnamed", "_clear_grad", "_rename", "_backward"))

# ---------------------------------------------------------------- compiled form


@dataclass(slots=True)
class Step:
    """One operation: constant arguments, and what must be looked up when it runs."""

    op: Op
    values: list[Any]
    getters: list[tuple[int, Getter]]
    out: str | list[str] | None
    no_grad: bool
    given: dict[str, Any]  # the caller's arguments, for the hints of errors


@dataclass(slots=True)
class Repeat:
    """Steps that run `times` times; `collect` gathers numbers every so many rounds."""

    times: int
    steps: list[Step | Repeat]
    collect: dict[str, int]


@dataclass(slots=True)
class Program:
    """A compiled program."""

    inputs: dict[str, Any] = field(default_factory=dict)
    steps: list[Step | Repeat] = field(default_factory=list)
    returns: list[str] = field(default_factory=list)
    keep: dict[str, str] = field(default_factory=dict)
    keep_all: dict[str, str | list[str | None] | None] = field(default_factory=dict)
    expect: dict[str, str] = field(default_factory=dict)
    strict: bool = False
    no_grad: bool = False
    if_none_match: bool = False


_FIELDS = ("inputs", "steps", "return", "keep", "keep_all", "expect", "strict", "no_grad", "if_none_match")
_PUBLIC = tuple(f for f in _FIELDS if f not in ("keep_all", "if_none_match"))


def compile_program(data: Any, limits: Limits) -> Program:
    """Checks a program and prepares it. Raises an EngineError whose `step` is the path to the offender."""
    if not isinstance(data, Mapping):
        raise WrongType(f"a program is an object, got {kind_of(data)}")
    _known(data, _FIELDS, _PUBLIC, "program")
    program = Program()
    inputs = _object(data, "inputs")
    for name, value in inputs.items():
        check_name(name, "input name")
        program.inputs[name] = value
    counts = [0]
    program.steps, total = _compile_steps(_list(data, "steps"), limits, [], counts, 0)
    if total > limits.max_run:
        raise LimitExceeded(
            f"this program would run {total} steps, more than the limit of {limits.max_run}",
            hint=Hint("limit", name="max_run", limit=limits.max_run),
        )
    for name in _list(data, "return"):
        if not isinstance(name, str):
            raise WrongType(f"return takes names, got {kind_of(name)}", param="return")
        program.returns.append(name)
    for local, name in _object(data, "keep").items():
        program.keep[local] = check_name(name)
    for local, name in _object(data, "keep_all").items():
        for n in name if isinstance(name, list) else [name]:
            if n is not None:
                check_name(n)
        program.keep_all[local] = name
    for ref, tag in _object(data, "expect").items():
        if not isinstance(tag, str):
            raise WrongType("expect takes etags", param="expect")
        program.expect[ref] = tag
    for flag in ("strict", "no_grad", "if_none_match"):
        value = data.get(flag, False)
        if type(value) is not bool:
            raise WrongType(f"{flag} is true or false, got {kind_of(value)}", param=flag)
        setattr(program, flag, value)
    return program


def _known(data: Mapping[str, Any], fields: Sequence[str], shown: Sequence[str], what: str) -> None:
    for name in data:
        if name not in fields:
            near = get_close_matches(str(name), shown, 1, 0.5)
            hint = Hint("near-field", near=near[0]) if near else Hint("fields", fields=list(shown))
            raise UnknownParameter(f"a {what} has no field {name!r}", code="unknown-field", param=str(name), hint=hint)


def _object(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = data.get(name)
    if value is None:
        return {}
    if type(value) is not dict and not isinstance(value, Mapping):
        raise WrongType(f"{name} is an object, got {kind_of(value)}", param=name)
    return value


def _list(data: Mapping[str, Any], name: str) -> Sequence[Any]:
    value = data.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise WrongType(f"{name} is a list, got {kind_of(value)}", param=name)
    return value


_STEP_FIELDS = ("op", "args", "out", "no_grad")
_REPEAT_FIELDS = ("repeat", "steps", "collect")


def _compile_steps(
    data: Sequence[Any], limits: Limits, path: list[int], counts: list[int], depth: int
) -> tuple[list[Step | Repeat], int]:
    """The steps, and how many they are with every round counted."""
    steps: list[Step | Repeat] = []
    total = 0
    for i, raw in enumerate(data):
        counts[0] += 1
        here = [*path, i]
        try:
            if counts[0] > limits.max_steps:
                raise LimitExceeded(
                    f"a program has at most {limits.max_steps} steps",
                    hint=Hint("limit", name="max_steps", limit=limits.max_steps),
                )
            if type(raw) is not dict and not isinstance(raw, Mapping):
                raise WrongType(f"a step is an object, got {kind_of(raw)}")
            if "repeat" in raw:
                steps.append(repeat := _compile_repeat(raw, limits))
                repeat.steps, inner = _compile_steps(_list(raw, "steps"), limits, here, counts, depth + 1)
                if depth + 1 > limits.max_nesting:
                    raise LimitExceeded(
                        f"repeats may be nested {limits.max_nesting} deep",
                        hint=Hint("limit", name="max_nesting", limit=limits.max_nesting),
                    )
                total += repeat.times * inner
            else:
                steps.append(compile_step(raw))
                total += 1
        except EngineError as e:
            if e.step is None:
                e.step = here
            raise
    return steps, total


def _compile_repeat(raw: Mapping[str, Any], limits: Limits) -> Repeat:
    _known(raw, _REPEAT_FIELDS, _REPEAT_FIELDS, "repeat")
    times = raw["repeat"]
    if type(times) is not int or times < 0:
        raise WrongType("repeat is a number of rounds, 0 or more", param="repeat")
    if times > limits.max_rounds:
        raise LimitExceeded(
            f"repeat {times} is over the limit of {limits.max_rounds} rounds",
            hint=Hint("limit", name="max_rounds", limit=limits.max_rounds),
            param="repeat",
        )
    collect = {}
    for name, every in _object(raw, "collect").items():
        if type(every) is not int or every < 1:
            raise WrongType(f"collect takes a number of rounds, 1 or more, for {name!r}", param="collect")
        collect[name] = every
    return Repeat(times, [], collect)


def compile_step(raw: Mapping[str, Any]) -> Step:
    """One step, its operation found and its parameters read."""
    _known(raw, _STEP_FIELDS, _STEP_FIELDS, "step")
    name = raw.get("op")
    if not isinstance(name, str):
        raise MissingParameter("a step needs an op" if name is None else "op is a name", param="op")
    args = _object(raw, "args")
    op = REGISTRY[name] if name in PRIVATE else find_op(name)
    if op.overloads:
        op = choose(op, dict(args))
    out = _compile_out(raw.get("out"))
    no_grad = raw.get("no_grad", False)
    if type(no_grad) is not bool:
        raise WrongType("no_grad is true or false", param="no_grad")
    values = list(op.defaults)
    getters: list[tuple[int, Getter]] = []
    try:
        for key, value in args.items():
            at = op.positions.get(key)
            if at is None:
                raise unknown_parameter(name, key, op.names)
            fixed, made = read_argument(op, op.params[at], value)
            if fixed:
                values[at] = made
            else:
                getters.append((at, made))
        for p in op.params:
            if p.required and p.name not in args:
                raise MissingParameter(
                    f'{name}() missing 1 required positional arguments: "{p.name}"',
                    op=name,
                    param=p.name,
                    hint=Hint("missing-parameter", param=p.name, type=p.type, op=name),
                )
    except EngineError as e:
        e.op = name
        if e.hint is not None:
            e.hint = e.hint.fill(references(args))
        raise
    return Step(op, values, getters, out, no_grad, dict(args))


def _compile_out(out: Any) -> str | list[str] | None:
    if out is None:
        return None
    if type(out) is str:
        return check_name(out, "local name")
    if isinstance(out, Mapping) and set(out) == {"whole"}:
        return check_name(out["whole"], "local name")
    if isinstance(out, list):
        return [check_name(n, "local name") if n is not None else "" for n in out]
    return check_name(out, "local name")


# ---------------------------------------------------------------- running

_ABSENT = object()


class Scope:
    """The names of a running program: outputs so far, then inputs, then the session's."""

    __slots__ = ("ctx", "names", "session", "strict")

    def __init__(self, session: Namespace, strict: bool) -> None:
        self.session = session
        self.strict = strict
        self.ctx = session.ctx
        self.names: dict[str, Any] = {}

    def resolve(self, name: str, param: str | None = None) -> Any:
        """Whatever a name stands for; `x.grad` may be None. Raises NoSuchTensor with near names."""
        found = self.names.get(name, _ABSENT)
        if found is not _ABSENT:
            return found
        if name.endswith(".grad"):
            base = self.resolve(name[:-5], param)
            return base.grad if type(base) is Tensor else None
        if not self.strict:
            t = self.session.find(name)
            if t is not None:
                return t
        known = [*self.names, *(() if self.strict else self.session.references())]
        near = get_close_matches(name, known, 3, 0.6)
        raise NoSuchTensor(
            f"there is no tensor {name!r}{' in this program' if self.strict else ''}",
            hint=Hint("near-names", near=near) if near else Hint("list-tensors"),
            param=param,
        )

    def tensor(self, name: str, param: str) -> Tensor:
        found = self.resolve(name, param)
        if type(found) is Tensor:
            return found
        if found is None and name.endswith(".grad"):
            raise NoGrad(f"{name[:-5]!r} has no gradient yet", hint=Hint("no-grad-yet", name=name[:-5]), param=param)
        if type(found) in (bool, int, float, complex):
            return self.literal(found, param)
        what = "a list of tensors" if type(found) is list else kind_of(found)
        raise WrongType(f"{name!r} is {what}, and a tensor is wanted here", param=param)

    def tensors(self, name: str, param: str, op: str) -> list[Tensor]:
        found = self.resolve(name, param)
        if type(found) is list and all(type(t) is Tensor for t in found):
            return found
        if type(found) is Tensor:
            raise WrongType(
                f"{op}(): argument '{param}' must be tuple of Tensors, not Tensor",
                hint=Hint("tensor-list", param=param, name=name),
                param=param,
            )
        raise WrongType(f"{name!r} is no list of tensors", param=param)

    def state(self, name: str, param: str) -> dict[str, Any]:
        found = self.names.get(name, _ABSENT)
        if found is _ABSENT and not self.strict:
            found = self.session.find_state(name) or _ABSENT
        if type(found) is dict:
            return found
        raise NoSuchTensor(f"there is no optimizer state {name!r}", param=param, hint=Hint("make-state"))

    def literal(self, value: Any, param: str, empty: type = float, adopt: bool = False) -> Tensor:
        """A tensor from values that the caller wrote down; `adopt` where they are read only once."""
        ctx = self.ctx
        wanted = shape = None
        backend = ctx.default_backend
        flag = False
        if type(value) is dict:
            found = number(value)
            if found is not None:
                value = found
            else:
                _known(value, _LITERAL, _LITERAL, "tensor")
                if "data" not in value:
                    raise MissingParameter("a tensor needs data", param=param, hint=Hint("tensor-data"))
                d = value.get("dtype")
                wanted = dtype(d) if isinstance(d, str) else None
                if d is not None and wanted is None:
                    raise WrongType(f"dtype is a name, got {kind_of(d)}", param="dtype")
                shape = value.get("shape")
                if shape is not None and not (type(shape) is list and all(type(n) is int for n in shape)):
                    raise WrongType("shape is a list of whole numbers", param="shape")
                if value.get("device") is not None:
                    if not isinstance(value["device"], str):
                        raise WrongType("device is a name", param="device")
                    backend = find(value["device"], ctx.devices)
                flag = value.get("requires_grad", False)
                if flag is None:
                    flag = False
                if type(flag) is not bool:
                    raise WrongType("requires_grad is true or false", param="requires_grad")
                value = value["data"]
        if empty is int and value == [] and wanted is None:
            wanted = dtype("int64")
        array, d = read(value, wanted, shape, ctx.default_dtype, param=param, adopt=adopt)
        ctx.admit(array.nbytes)
        t = fresh(backend.from_host(array), Spec(array.shape, d), backend, ctx.ledger)
        if flag:
            require_grad(t)
        return t


_LITERAL = ("data", "shape", "dtype", "device", "requires_grad")


def count_steps(steps: Sequence[Step | Repeat], counts: dict[str, int], times: int = 1) -> None:
    """Adds to `counts` how often each operation ran in a program that is done, each round's counted."""
    for step in steps:
        if isinstance(step, Repeat):
            count_steps(step.steps, counts, times * step.times)
        elif times:
            name = step.op.name
            counts[name] = counts.get(name, 0) + times


@dataclass(slots=True)
class Outcome:
    """What a program left behind, before the session commits it."""

    scope: Scope
    collected: dict[str, list[Any]]
    steps_run: int
    plans: dict[tuple[int, ...], PlanReport] = field(default_factory=dict)


@dataclass(slots=True)
class PlanReport:
    """How a repeat ran: so many rounds by a plan, and why not the others, where there is a reason."""

    rounds: int = 0
    why: str | None = None


def run_program(program: Program, session: Namespace) -> Generator[None, None, Outcome]:
    """Runs inputs and steps, yielding after each. The caller rolls back when it raises."""
    scope = Scope(session, program.strict)
    outcome = Outcome(scope, {}, 0)
    for name, value in program.inputs.items():
        try:
            scope.names[name] = (
                scope.resolve(value, name) if isinstance(value, str) else scope.literal(value, name, adopt=True)
            )
        except EngineError as e:
            e.param = e.param or name
            if e.hint is not None:
                e.hint = e.hint.fill({"input": name})
            raise
    ctx = session.ctx
    if program.no_grad:
        ctx.grad_enabled = False
    try:
        yield from _run_steps(program.steps, scope, outcome, [], [])
    except OutOfTime as e:
        e.facts["steps_run"] = outcome.steps_run
        raise
    finally:
        ctx.grad_enabled = True
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
            if step.no_grad and ctx.grad_enabled:
                ctx.grad_enabled = False
                try:
                    made = step.op.run(tuple(args))
                finally:
                    ctx.grad_enabled = True
            else:
                made = step.op.run(tuple(args))
        except EngineError as e:
            _locate(e, step, [*path, i], rounds)
            raise
        except MemoryError as e:
            error = _no_memory()
            _locate(error, step, [*path, i], rounds)
            raise error from e
        outcome.steps_run += 1
        out = step.out
        if out is not None:
            if isinstance(out, str):
                names[out] = named(step.op, made)
            else:
                _bind_several(step, out, made, names, [*path, i], rounds)
        if times is not None:
            times[step.op.name] = times.get(step.op.name, 0.0) + time.perf_counter() - begin
        try:
            yield
        except OutOfTime as e:  # thrown in where the program waits for its next turn
            _locate(e, step, [*path, i], rounds)
            raise


def _no_memory() -> OutOfMemory:
    return OutOfMemory("the machine has no memory left for this", hint=Hint("free-memory", whose="server"))


def named(op: Op, made: Any) -> Any:
    """A result by torch's field names where it has them."""
    if op.fields is not None and type(made) is list:
        return {name: part for name, part in zip(op.fields, made, strict=False) if part is not None}
    return made


def _bind_several(
    step: Step, out: list[str], made: Any, names: dict[str, Any], path: list[int], rounds: list[int]
) -> None:
    parts = list(made.values()) if type(made) is dict else made if type(made) in (list, tuple) else [made]
    if len(parts) != len(out):
        error = Invalid(
            f"{step.op.name} gives {len(parts)} result{'s' if len(parts) != 1 else ''}, but out names {len(out)}",
            code="out-count",
            param="out",
            hint=Hint("out-count", count=len(parts)),
        )
        _locate(error, step, path, rounds)
        raise error
    names.update({name: part for name, part in zip(out, parts, strict=True) if name})


def _locate(e: EngineError, step: Step, path: list[int], rounds: list[int]) -> None:
    """Says in the error which step it was, and fills its hint with what the caller gave."""
    if e.step is None:
        e.step = path
        e.round = list(rounds) or None
        e.op = step.op.name if e.op is None or e.op.startswith("_") else e.op
        if e.hint is not None:
            e.hint = e.hint.fill(references(step.given, step.op))


def _run_repeat(repeat: Repeat, scope: Scope, outcome: Outcome, path: list[int], rounds: list[int]) -> Iterator[None]:
    inner = [*rounds, 0]
    for name in repeat.collect:
        outcome.collected.setdefault(name, [])
    n = 0
    while n < repeat.times:
        n += 1
        inner[-1] = n
        yield from _run_steps(repeat.steps, scope, outcome, path, inner)
        _collect(repeat, scope, outcome, path, inner)
        if n == 1 and scope.ctx.plan_from and repeat.times >= scope.ctx.plan_from:
            planned = _Planned(repeat, scope, outcome, path, inner)
            # The last round is the interpreter's: it leaves the names, tapes and gradients that a reader finds.
            yield from planned.run(repeat.times - 1)
            n = inner[-1]


def _collect(repeat: Repeat, scope: Scope, outcome: Outcome, path: list[int], rounds: list[int]) -> None:
    for name, every in repeat.collect.items():
        if rounds[-1] % every == 0:
            try:
                outcome.collected[name].append(one_number(scope.resolve(name, "collect"), name))
            except EngineError as e:
                e.step, e.round = path, rounds.copy()
                raise


# ---------------------------------------------------------------- rounds by a plan

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
        found = self.names.get(name, _ABSENT)
        if found is not _ABSENT:
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

    def tensors(self, name: str, param: str) -> list[Tensor]:
        found = self.resolve(name, param)
        if type(found) is list and all(isinstance(t, Tensor) for t in found):
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


class _Planned:
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
                self._locate(e, e, plan)
                raise
            except MemoryError as e:
                raise self._locate(_no_memory(), e, plan) from e
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

    def _locate(self, error: EngineError, cause: Exception, plan: Plan) -> EngineError:
        """The error with the step and the round in which `cause` came up."""
        place, over = plan.place_of(cause.__traceback__)
        step = self.repeat.steps[place]
        assert isinstance(step, Step)
        self.rounds[-1] += over + 1
        _locate(error, step, [*self.path, place], self.rounds)
        return error

    def _plan(self) -> tuple[Tracer, Plan]:
        ctx = self.scope.ctx
        if any(isinstance(step, Repeat) for step in self.repeat.steps):
            raise NotPlanned("there is a repeat within")
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
            _bind_several(step, step.out, made, traced.names, [], [])

    def _asked(self, name: str, traced: TracedScope, tracer: Tracer) -> int:
        found = traced.resolve(name, "collect")
        if not isinstance(found, Cell) or found.numel != 1 or found.dtype.reduced:
            raise NotPlanned(f"{name!r}, which is collected, is no plain number")
        return tracer.slot(found.array)


def one_number(value: Any, name: str) -> Any:
    """The number in a one-element tensor."""
    if type(value) in (bool, int, float, complex):
        return value
    if type(value) is Tensor and value.numel == 1:
        return item(value)
    raise Invalid(
        f"collect takes tensors of one element, and {name!r} is "
        + (f"of shape {list(value.shape)}" if type(value) is Tensor else kind_of(value)),
        code="collect-one-element",
        hint=Hint("collect-one"),
        param="collect",
    )


def item(t: Tensor) -> Any:
    """The one element of a tensor, as a Python number."""
    host = t.backend.to_host(t.array)
    if t.dtype.reduced:
        from engine.backend import CPU

        host = CPU.widen(host, t.dtype)
    return host.reshape(-1)[0].item()
