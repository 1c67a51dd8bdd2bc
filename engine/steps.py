"""What a client wrote as a program, checked and read: all that needs no tensor."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from engine.arguments import Getter, kind_of, read_argument, references
from engine.errors import (
    EngineError,
    Hint,
    Invalid,
    LimitExceeded,
    MissingParameter,
    UnknownParameter,
    WrongType,
)
from engine.limits import Limits
from engine.op import REGISTRY, Op, choose, find_op, missing, spelled, unknown_parameter

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
class Function:
    """Steps as a function: an argument of operations that call it. `cost`: the steps of one call, rounds counted."""

    inputs: list[str]
    steps: list[Step | Repeat]
    returns: str | list[str]
    cost: int
    limit: int


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
    detect_anomaly: bool = False
    if_none_match: bool = False
    contents: Mapping[str, Any] | None = None  # what engine.portable.restore takes: all that the session is to hold
    total: int = 0  # the steps it will run, with every round counted; of a function one call
    entry: Any = None  # what is kept of it, where it was there before (engine.replays.Entry)


_FIELDS = (
    "inputs",
    "steps",
    "return",
    "keep",
    "keep_all",
    "expect",
    "strict",
    "no_grad",
    "detect_anomaly",
    "if_none_match",
    "contents",
)
_PUBLIC = tuple(f for f in _FIELDS if f not in ("keep_all", "if_none_match", "contents"))


def compile_program(data: Any, limits: Limits, known: tuple[list[Step | Repeat], int] | None = None) -> Program:
    """Checks a program and prepares it. Raises an EngineError whose `step` is the path to the offender.

    `known`: its steps and their total, where they were prepared before.
    """
    if not isinstance(data, Mapping):
        raise WrongType(f"a program is an object, got {kind_of(data)}")
    known_fields(data, _FIELDS, _PUBLIC, "program")
    program = Program()
    inputs = _object(data, "inputs")
    for name, value in inputs.items():
        check_name(name, "input name")
        program.inputs[name] = value
    program.steps, total = known or _compile_steps(_list(data, "steps"), limits, [], [0], 0)
    program.total = total
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
    for flag in ("strict", "no_grad", "detect_anomaly", "if_none_match"):
        value = data.get(flag, False)
        if type(value) is not bool:
            raise WrongType(f"{flag} is true or false, got {kind_of(value)}", param=flag)
        setattr(program, flag, value)
    program.contents = data.get("contents")
    return program


def known_fields(data: Mapping[str, Any], fields: Sequence[str], shown: Sequence[str], what: str) -> None:
    """Refuses a field that is none of `fields`, with the nearest of those `shown`."""
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
                counted = [counts[0]]
                steps.append(step := compile_step(raw, limits, counted, depth))
                counts[0] = counted[0]
                total += 1 + sum(step.values[at].cost for at in step.op.functions if step.values[at] is not None)
        except EngineError as e:
            if e.step is None:
                e.step = here
            raise
    return steps, total


def _compile_repeat(raw: Mapping[str, Any], limits: Limits) -> Repeat:
    known_fields(raw, _REPEAT_FIELDS, _REPEAT_FIELDS, "repeat")
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


_FUNCTION_FIELDS = ("inputs", "steps", "return")


def _compile_function(data: Any, param: str, limits: Limits, counts: list[int], depth: int) -> Function:
    """A program that an operation calls. The path of an error in it is relative to it."""
    if not isinstance(data, Mapping):
        raise WrongType(
            f"{param} is a program, an object of inputs, steps and return, and got {kind_of(data)}",
            param=param,
            hint=Hint("function"),
        )
    known_fields(data, _FUNCTION_FIELDS, _FUNCTION_FIELDS, "function")
    if depth + 1 > limits.max_nesting:
        raise LimitExceeded(
            f"functions may be nested {limits.max_nesting} deep",
            hint=Hint("limit", name="max_nesting", limit=limits.max_nesting),
            param=param,
        )
    inputs = [check_name(name, "input name") for name in _list(data, "inputs")]
    if len(set(inputs)) != len(inputs):
        raise Invalid(f"the inputs of {param} must have different names, got {inputs}", code="bad-name", param=param)
    returns = data.get("return")
    if returns is None:
        raise MissingParameter(f"{param} needs a return: a name, or a list of them", param=param, hint=Hint("function"))
    for name in returns if isinstance(returns, list) else [returns]:
        if not isinstance(name, str):
            raise WrongType(f"return takes a name or a list of names, got {kind_of(name)}", param="return")
    steps, cost = _compile_steps(_list(data, "steps"), limits, [], counts, depth + 1)
    if any(isinstance(step, Repeat) and _collects(step) for step in steps):
        raise Invalid("a function has no collect: only the program itself answers with numbers", param="collect")
    return Function(inputs, steps, returns, cost, limits.max_run)


def _collects(repeat: Repeat) -> bool:
    return bool(repeat.collect) or any(isinstance(step, Repeat) and _collects(step) for step in repeat.steps)


def compile_step(raw: Mapping[str, Any], limits: Limits, counts: list[int], depth: int) -> Step:
    """One step, its operation found and its parameters read."""
    known_fields(raw, _STEP_FIELDS, _STEP_FIELDS, "step")
    name = raw.get("op")
    if not isinstance(name, str):
        raise MissingParameter("a step needs an op" if name is None else "op is a name", param="op")
    args = _object(raw, "args")
    op = REGISTRY[name] if name in PRIVATE else find_op(name)
    args = spelled(op, args)
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
            if at in op.functions and not (value is None and op.params[at].form.endswith("?")):
                values[at] = _compile_function(value, key, limits, counts, depth)
                continue
            fixed, made = read_argument(op, op.params[at], value)
            if fixed:
                values[at] = made
            else:
                getters.append((at, made))
        if any(p.required and p.name not in args for p in op.params):
            raise missing(op, args, name)
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


def count_steps(steps: Sequence[Step | Repeat], counts: dict[str, int], times: int = 1) -> None:
    """Adds to `counts` how often each operation ran in a program that is done, each round's counted."""
    for step in steps:
        if isinstance(step, Repeat):
            count_steps(step.steps, counts, times * step.times)
        elif times:
            name = step.op.name
            counts[name] = counts.get(name, 0) + times
